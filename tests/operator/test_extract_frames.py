"""JPEGs at two rates."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnihuman.operator.extract_frames import ExtractFrames
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row


def test_frames_are_some_of_those_for_faces(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=75, seconds=0.0), seconds=3.0)
    result = apply_one(ExtractFrames(side=32), tmp_path, row)
    times = [frame["time"] for frame in result["face_frames"]]
    assert len(times) == 15 and times == sorted(times)
    assert [frame["time"] for frame in result["frames"]] == times[2::5]
    assert Image.open(io.BytesIO(result["frames"][0]["jpeg"])).size == (32, 24)


def test_a_short_clip_has_one_frame(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=3, seconds=0.0), seconds=0.12)
    result = apply_one(ExtractFrames(), tmp_path, row)
    assert len(result["frames"]) == len(result["face_frames"]) == 1


def test_one_rate_and_steps_of_the_file(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=10, seconds=0.0), seconds=0.4)
    stepped = ExtractFrames(rate=None, face_rate=None, every=4)
    assert list(stepped.writes) == ["frames"]
    times = [frame["time"] for frame in apply_one(stepped, tmp_path, row)["frames"]]
    assert times == pytest.approx([0.0, 0.16, 0.32], abs=1e-3)
    faces = apply_one(ExtractFrames(rate=None), tmp_path, row)
    described = apply_one(ExtractFrames(rate=5.0, face_rate=None), tmp_path, row)
    assert list(faces) == ["face_frames"] and described["frames"] == faces["face_frames"]


@pytest.mark.parametrize("options", [{"every": 4}, {"rate": None, "face_rate": None}])
def test_rates_or_a_step(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"every=.*every alone"):
        ExtractFrames(**options)


def test_rates_divide_each_other() -> None:
    with pytest.raises(ValueError, match=r"face_rate=5 .*rate=2"):
        ExtractFrames(rate=2.0)
