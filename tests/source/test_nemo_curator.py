"""Clips of NeMo Curator become records."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.source.nemo_curator import NemoCuratorSource, read_caption

from .conftest import read_entries


def write_output(folder: Path, clip: Path, **metas: Any) -> Path:
    """Write an output folder with a clip for each entry of metadata."""
    for name in ("clips", "filtered_clips", "metas/v0"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, meta in metas.items():
        shutil.copy(clip, folder / "clips" / f"{name}.mp4")
        location = f"/elsewhere/clips/{name}.mp4"
        text = meta if isinstance(meta, str) else json.dumps({"span_uuid": name, "clip_location": location, **meta})
        (folder / "metas" / "v0" / f"{name}.json").write_text(text)
    return folder


def test_captions_of_windows_are_the_answer(root: Path, tmp_path: Path) -> None:
    windows = [{"start_frame": 0, "qwen_caption": "She talks.", "qwen_lm_enhanced_caption": "A woman talks."}]
    windows.append({"start_frame": 256, "qwen_caption": "She stops."})
    filtered = {"clip_location": "/elsewhere/filtered_clips/b.mp4"}
    folder = write_output(
        tmp_path / "out", root / "talk.mp4", a={"windows": windows, "aesthetic_score": 4.5}, b=filtered, c="{"
    )
    ((record,), (error,)) = read_entries(build(compose_part("source", "nemo_curator"))(folder, folder))
    assert record.id == "a" and record.messages[-1][1] == "A woman talks. She stops."
    assert record.file == folder / "clips" / "a.mp4" and record.meta["meta"] == {"aesthetic_score": 4.5}
    assert error.reason == "malformed_json" and "c.json" in str(error)


def test_windows_without_a_caption_have_none() -> None:
    assert read_caption({"windows": [{"start_frame": 0, "end_frame": 9}, {"qwen_caption": " A. "}]}) == "A."
    assert read_caption({}) == ""


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NeMo Curator.*metas"):
        list(NemoCuratorSource(tmp_path, root).records())
