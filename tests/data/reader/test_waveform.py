"""The reader of audio: its amount is the number of samples in the clip, also beyond a window of 30 s."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.face import FaceInput
from omnihuman.data.media import Clip, Header
from omnihuman.data.packing import MicroBatch
from omnihuman.data.reader.base import ReadOptions
from omnihuman.data.reader.waveform import WaveformReader
from omnihuman.data.record import BadSample, Record
from tests.data.conftest import CHATML, TRANSFORMS, count_tokens, decode_audio, write_clip

READER = WaveformReader(ReadOptions(num_frames=8, face=FaceInput()))
RECORD = Record("1", Path("a.mp4"), "video", (), ("video", "audio"), start=0.5, end=1.5)
HEADER = Header(has_video=True, audio=(0.0, 2.0))
SECONDS = 65
"""Of the clip with more than two windows."""


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


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "speech.wav"
    return write_clip(path, 0, SECONDS, audio_codec="pcm_s16le", sample_rate=16000, layout="mono")


def plan(file: Path, tokenizer: Any, start: float = 0.0, answer: str = "Words.", **options: Any) -> Samples:
    turns = (("user", "<audio>\nWrite it down."), ("assistant", answer))
    record = Record("1", file, "audio", turns, ("audio",), start, location="train.json[0]")
    return Samples([record], TRANSFORMS, count_tokens, Chat(tokenizer, CHATML), num_frames=2, **options)


def test_all_audio_is_planned_and_read(speech: Path, tokenizer: Any) -> None:
    samples = plan(speech, tokenizer)
    assert samples.planned[0].counts["audio"] == 10 * SECONDS, "known before decoding"
    waveform = samples.sample(samples.planned[0]).waveform
    torch.testing.assert_close(waveform, decode_audio(speech))
    assert int(samples[MicroBatch((0,), 1)].signals["audio"].mask.sum()) == SECONDS * 100
    later = plan(speech, tokenizer, start=25.0)
    torch.testing.assert_close(later.sample(later.planned[0]).waveform, waveform[25 * 16000 :])


def test_a_target_about_audio_that_is_not_read_is_skipped(speech: Path, tokenizer: Any) -> None:
    with pytest.raises(
        BadSample, match=r"train\.json\[0\] \(1\): .*speech\.wav has 65\.0 s .*long_audio=windows"
    ) as bad:
        plan(speech, tokenizer, long_audio="first")
    assert bad.value.reason == "audio_too_long"
    skipped = plan(speech, tokenizer, long_audio="first", policy="skip").skipped
    assert [entry["reason"] for entry in skipped] == ["audio_too_long"]
    assert len(plan(speech, tokenizer, start=35.0, long_audio="first")) == 1


def test_a_question_is_about_the_first_window(speech: Path, tokenizer: Any) -> None:
    samples = plan(speech, tokenizer, answer="", long_audio="first", prompts=True)
    planned = samples.planned[0]
    assert planned.counts["audio"] == 300 and samples.is_audio_cut(planned)
    torch.testing.assert_close(samples.sample(planned).waveform, decode_audio(speech)[: 30 * 16000])
    all_windows = plan(speech, tokenizer, answer="", prompts=True)
    assert all_windows.planned[0].counts["audio"] == 650 and not all_windows.is_audio_cut(all_windows.planned[0])


def test_audio_that_exceeds_the_limit_is_refused_before_it_is_decoded(speech: Path, tokenizer: Any) -> None:
    chat = Chat(tokenizer, CHATML, max_length=500)
    record = Record("1", speech, "audio", (("user", "<audio>\nWho?"), ("assistant", "A man.")), ("audio",))
    with pytest.raises(BadSample, match="shorter clip") as bad:
        Samples([record], TRANSFORMS, count_tokens, chat, num_frames=2)
    assert bad.value.reason == "too_long"
