"""The reader of audio: its amount is the number of samples in the clip of the audio track."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omnihuman.data.face import FaceInput
from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import ReadOptions
from omnihuman.data.reader.waveform import WaveformReader
from omnihuman.data.record import BadSample, Record

READER = WaveformReader(ReadOptions(num_frames=8, face=FaceInput()))
RECORD = Record("1", Path("a.mp4"), "video", (), ("video", "audio"), start=0.5, end=1.5)
HEADER = Header(has_video=True, audio=(0.0, 2.0))


def test_the_amount_is_the_number_of_samples_in_the_clip() -> None:
    assert READER.count(RECORD, HEADER) == 16_000
    assert READER.count(replace(RECORD, audio_track_span=(0.0, 2.0)), HEADER) == 32_000


def test_a_clip_after_the_audio_raises() -> None:
    with pytest.raises(BadSample, match=r"a\.mp4 .*no audio") as error:
        READER.count(replace(RECORD, start=3.0, end=4.0), HEADER)
    assert error.value.reason == "empty_audio"


def test_availability_follows_the_header() -> None:
    assert READER.is_available(RECORD, HEADER) and not READER.is_available(RECORD, Header(has_video=True))


def test_the_waveform_is_that_of_the_clip() -> None:
    waveform = torch.zeros(16_000)
    assert READER.read(RECORD, Clip(waveform=waveform)) is waveform and READER.read(RECORD, Clip()) is None


def test_the_cache_key_names_the_audio_track() -> None:
    key = READER.cache_key(RECORD)
    assert READER.cache_key(replace(RECORD, audio_track=Path("a.wav"))) != key
    assert READER.cache_key(replace(RECORD, start=0.0)) != key
    assert READER.cache_key(replace(RECORD, second_clip=Path("b.mp4"), fps=5.0)) == key
