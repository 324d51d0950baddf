"""Headers of videos, sounds and stills."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnihuman.data.record import BadSample
from omnihuman.operator.probe import Probe
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row


def test_a_video_has_its_size_length_and_keyframes(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.mp4", num_frames=50, seconds=2.0)
    row = apply_one(Probe(), tmp_path, build_row(file))
    assert (row["kind"], row["width"], row["height"], row["short_side"]) == ("video", 64, 48, 48)
    assert row["seconds"] == pytest.approx(2.0, abs=0.1) and row["fps"] == 25.0
    assert row["has_sound"] and row["keyframes"] == 5  # every 12 frames


def test_a_span_is_shorter_than_its_file(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.mp4", num_frames=50, seconds=0.0)
    row = apply_one(Probe(), tmp_path, build_row(file, start=0.5, end=1.25))
    assert row["seconds"] == pytest.approx(0.75) and not row["has_sound"]
    with pytest.raises(BadSample, match=r"a\.mp4.* 9 s"):
        apply_one(Probe(), tmp_path, build_row(file, start=9.0))


def test_sound_and_stills_have_a_kind(tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "a.m4a", num_frames=0, seconds=1.0)
    row = apply_one(Probe(), tmp_path, build_row(sound))
    assert (row["kind"], row["width"], row["keyframes"]) == ("audio", 0, 0) and row["seconds"] > 0.9
    Image.fromarray(np.zeros((30, 20, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    row = apply_one(Probe(), tmp_path, build_row(tmp_path / "a.png"))
    assert (row["kind"], row["width"], row["height"], row["seconds"]) == ("image", 20, 30, 0.0)
