"""The reader of frames: its amount is known from the header, and its cache key names what decides the frames."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omnihuman.data.face import FaceInput
from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import ReadOptions, load_readers
from omnihuman.data.reader.frames import FramesReader
from omnihuman.data.record import Record
from omnihuman.modality import MODALITIES

OPTIONS = ReadOptions(num_frames=8, face=FaceInput())
VIDEO = Record("1", Path("a.mp4"), "video", (), ("video",))
HEADER = Header(has_video=True, num_frames=50)


def test_every_modality_has_a_reader() -> None:
    readers = load_readers(OPTIONS)
    assert list(readers) == [modality.field for modality in MODALITIES]
    for modality in MODALITIES:
        assert type(readers[modality.field]).__module__ == f"omnihuman.data.reader.{modality.field}"


@pytest.mark.parametrize(
    ("record", "header", "num_frames"),
    [
        (VIDEO, HEADER, 8),
        (VIDEO, replace(HEADER, is_still=True), 1),
        (replace(VIDEO, kind="image"), HEADER, 1),
        (replace(VIDEO, second_clip=Path("b.mp4")), HEADER, 8),
    ],
)
def test_the_amount_is_the_number_of_frames(record: Record, header: Header, num_frames: int) -> None:
    assert FramesReader(OPTIONS).count(record, header) == num_frames


def test_two_clips_have_a_frame_each_at_least() -> None:
    reader = FramesReader(replace(OPTIONS, num_frames=1))
    assert reader.count(replace(VIDEO, second_clip=Path("b.mp4")), HEADER) == 2


def test_frames_are_those_of_the_clip() -> None:
    frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    reader = FramesReader(OPTIONS)
    assert reader.read(VIDEO, Clip(frames)) is frames and reader.read(VIDEO, Clip()) is None
    assert reader.is_available(VIDEO, HEADER) and not reader.is_available(VIDEO, replace(HEADER, has_video=False))


@pytest.mark.parametrize(
    "change", [{"end": 1.0}, {"fps": 5.0}, {"second_clip": Path("b.mp4")}, {"second_clip_span": (1.0, None)}]
)
def test_what_decides_the_frames_is_in_the_cache_key(change: dict) -> None:
    reader = FramesReader(OPTIONS)
    assert reader.cache_key(replace(VIDEO, **change)) != reader.cache_key(VIDEO)
    assert reader.cache_key(replace(VIDEO, audio_track=Path("a.wav"))) == reader.cache_key(VIDEO)
