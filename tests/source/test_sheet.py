"""The drawing of a sheet of records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnihuman.source.jsonl import JsonlSource
from omnihuman.source.sheet import DPI, LINE_HEIGHT, MAX_FRAMES_HEIGHT, MAX_LINES
from tests.data.conftest import write_clip

from .conftest import build_entry, write_lines


def read_ink(file: Path) -> Any:
    """Return which pixels ``[H W]`` of an image are not white."""
    return np.asarray(Image.open(file).convert("L")) < 250


def test_long_texts_are_wrapped_and_stay_inside_the_sheet(root: Path, tmp_path: Path) -> None:
    heights = []
    for count in (1, 100, 1000):
        turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "wide 高兴 words " * count}]
        path = write_lines(tmp_path / "a.jsonl", build_entry(conversations=turns))
        ink = read_ink(JsonlSource(path, root).draw_sheet(tmp_path / "a.png", num_frames=4).files[0])
        assert not ink[:, -8:].any() and not ink[:8].any() and not ink[-8:].any()
        heights.append(len(ink))
    # 100 answers take 11 lines, 1000 the largest number of lines
    assert heights[1] > heights[0] + 5 * LINE_HEIGHT * DPI
    assert heights[2] == pytest.approx(heights[0] + (MAX_LINES - 1) * LINE_HEIGHT * DPI, abs=2)


@pytest.mark.parametrize("has_audio", [True, False])
def test_a_clip_fills_the_width_of_the_sheet(tmp_path: Path, has_audio: bool) -> None:
    write_clip(tmp_path / "talk.mp4", 25, 1.0 * has_audio)
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "happy"}]
    path = write_lines(tmp_path / "a.jsonl", build_entry(conversations=turns))
    ink = read_ink(JsonlSource(path, tmp_path).draw_sheet(tmp_path / "a.png", num_frames=8).files[0])
    columns = ink.mean(0) > 0.2
    assert columns[: len(columns) // 2].any() and columns[int(0.9 * len(columns)) :].any()


def test_text_is_beside_a_narrow_clip(tmp_path: Path) -> None:
    Image.new("RGB", (40, 80), "red").save(tmp_path / "still.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
    path = write_lines(tmp_path / "a.jsonl", {"id": "1", "image": "still.png", "conversations": turns})
    image = Image.open(JsonlSource(path, tmp_path).draw_sheet(tmp_path / "a.png").files[0])
    assert image.height < (MAX_FRAMES_HEIGHT + 2 * LINE_HEIGHT) * DPI
    assert read_ink(tmp_path / "a.png")[: image.height // 3, image.width // 6 :].any()
