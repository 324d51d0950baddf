"""The sheet that every source draws of itself."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.source.jsonl import JsonlSource

from .conftest import build_entry, write_lines


def test_a_sheet_has_one_line_for_a_record(root: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", *[build_entry(id=str(number)) for number in range(5)], {"id": "bad"})
    heights = []
    for num_records in (1, 3):
        file = tmp_path / f"{num_records}.png"
        assert JsonlSource(path, root).draw_sheet(file, num_records, num_frames=2) == [file]
        heights.append(Image.open(file).size[1])
    assert heights[1] == pytest.approx(3 * heights[0], abs=2)


def test_a_sheet_has_text_and_errors_of_clips(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "talk.mp4", tmp_path)
    (tmp_path / "empty.mp4").write_bytes(b"")
    turns = [{"from": "human", "value": "What costs $5 or $6?"}, {"from": "gpt", "value": "$5."}]
    entries = [build_entry(), build_entry(video="empty.mp4"), {"id": "9", "text": "", "conversations": turns}]
    path = write_lines(tmp_path / "a.jsonl", *entries)
    assert JsonlSource(path, tmp_path).draw_sheet(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert (tmp_path / "a.png").is_file()


def test_a_sheet_without_a_valid_record_raises(root: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"id": "bad"})
    with pytest.raises(ValueError, match=r"a\.jsonl: .*no valid record"):
        JsonlSource(path, root).draw_sheet(tmp_path / "a.png")
