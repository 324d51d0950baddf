"""The sheet that every source draws of itself."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from omnihuman.data import media
from omnihuman.data.record import Record
from omnihuman.source.jsonl import JsonlSource
from omnihuman.source.sheet import Sheet, read_sheet_clip
from tests.data.conftest import write_clip

from .conftest import build_entry, write_lines


def test_a_sheet_has_one_line_for_a_record(root: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", *[build_entry(id=str(number)) for number in range(5)], {"id": "bad"})
    heights = []
    for num_records in (1, 3):
        file = tmp_path / f"{num_records}.png"
        assert JsonlSource(path, root).draw_sheet(file, num_records, num_frames=2) == Sheet([file], [], 0)
        heights.append(Image.open(file).size[1])
    assert heights[1] == pytest.approx(3 * heights[0], abs=2)


def test_a_sheet_has_text_and_errors_of_clips(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "talk.mp4", tmp_path)
    (tmp_path / "empty.mp4").write_bytes(b"")
    turns = [{"from": "human", "value": "What costs $5 or $6?"}, {"from": "gpt", "value": "$5."}]
    entries = [build_entry(), build_entry(video="empty.mp4"), {"id": "9", "text": "", "conversations": turns}]
    path = write_lines(tmp_path / "a.jsonl", *entries)
    sheet = JsonlSource(path, tmp_path).draw_sheet(tmp_path / "a.png")
    assert sheet.files == [tmp_path / "a.png"] and sheet.files[0].is_file()
    assert [error.reason for error in sheet.errors] == ["unreadable"]
    assert "a.jsonl:2 (7)" in str(sheet.errors[0]) and "empty.mp4" in str(sheet.errors[0])


def test_an_error_of_any_kind_does_not_stop_a_sheet(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(media, "probe", fail)
    sheet = JsonlSource(write_lines(tmp_path / "a.jsonl", build_entry()), root).draw_sheet(tmp_path / "a.png")
    assert "talk.mp4: UnicodeDecodeError" in str(sheet.errors[0])


def test_the_spectrogram_is_that_of_the_audio_track(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "talk.mp4", tmp_path)
    tone = write_clip(tmp_path / "tone.wav", 0, 1.0, audio_codec="pcm_s16le", sample_rate=16000, layout="mono")
    (record,) = JsonlSource(write_lines(tmp_path / "a.jsonl", build_entry(audio_track="tone.wav")), tmp_path).records()
    assert isinstance(record, Record)
    clip = read_sheet_clip(record, 2)
    assert clip.frames is not None and clip.waveform is not None and clip.waveform.shape == (16000,)
    assert torch.equal(clip.waveform, media.read(tone, num_samples=16000)[2])


@pytest.mark.filterwarnings("error")
def test_any_script_is_drawn_without_warnings(root: Path, tmp_path: Path) -> None:
    answers = [
        {"from": "human", "value": "<video>\n主要情绪\t是什么？"},
        {"from": "gpt", "value": "高兴 \u0007"},
    ]
    path = write_lines(tmp_path / "a.jsonl", build_entry(id="一", conversations=answers))
    sheet = JsonlSource(path, root).draw_sheet(tmp_path / "a.png")
    assert sheet.files[0].is_file()
    assert sheet.num_replaced >= 1, "no font has the control character"


def test_a_sheet_without_a_valid_record_raises(root: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"id": "bad"})
    with pytest.raises(ValueError, match=r"a\.jsonl: .*no valid record"):
        JsonlSource(path, root).draw_sheet(tmp_path / "a.png")
