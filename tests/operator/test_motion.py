"""A clip that moves differs from one that stands still."""

from pathlib import Path

from omnihuman.operator.motion import Motion
from tests.curation.conftest import write_scenes
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row


def test_noise_moves_more_than_a_bar(tmp_path: Path) -> None:
    noise = build_row(write_clip(tmp_path / "a.mp4", num_frames=25, seconds=0.0))
    bar = build_row(write_scenes(tmp_path / "b.mp4"), seconds=0.4)
    motions = [apply_one(Motion(), tmp_path, row)["motion"] for row in (noise, bar)]
    assert motions[0] > motions[1] > 0


def test_one_frame_has_none(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=1, seconds=0.0), seconds=0.04)
    assert apply_one(Motion(), tmp_path, row) == {"motion": 0.0}
