"""Clips of their own from the middle of a span, with sound."""

from pathlib import Path

import pytest

from omnihuman.data.media import probe
from omnihuman.operator.base import Dropped
from omnihuman.operator.trim import Trim
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row


def test_the_middle_becomes_a_file(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=50, seconds=2.0), seconds=2.0)
    folder = tmp_path / "out" / "03-trim"
    result = apply_one(Trim(least_frames=5, most_frames=10), folder, row)
    assert result["start"] == pytest.approx(0.8, abs=0.03) and result["end"] == pytest.approx(1.2, abs=0.03)
    header = probe(tmp_path / "out" / result["media"])
    assert header.num_frames == result["num_frames"] == 10 and header.has_audio
    assert not list(folder.rglob("*.tmp"))


def test_short_and_silent_clips(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=10, seconds=0.0), seconds=0.4)
    assert apply_one(Trim(), tmp_path / "x", row) == Dropped("too_short", "10 frames")
    result = apply_one(Trim(least_frames=1), tmp_path / "x", row)
    assert result["num_frames"] == 10 and not probe(tmp_path / result["media"]).has_audio
    with pytest.raises(ValueError, match="least_frames=9"):
        Trim(least_frames=9, most_frames=8)
