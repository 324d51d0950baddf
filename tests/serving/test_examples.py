"""Clips to try a model on."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.serving.examples import TASKS, examples_of


@pytest.fixture
def clips(corpus: Path, tmp_path: Path) -> Path:
    """The corpus' test split."""
    root = tmp_path / "clips"
    root.mkdir()
    (root / "media").symlink_to(corpus / "media")
    shutil.copy(corpus / "train.json", root / "test.json")
    return root


def test_there_is_one_of_each_kind_with_its_question_and_a_picture(clips: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    found = examples_of(clips, {"video", "audio", "image"}, shown)
    records = json.loads((clips / "test.json").read_text())
    assert [one.name for one in found] == [scene for scene in TASKS if scene in {one.name for one in found}]
    assert {"talk", "act"} <= {one.name for one in found} and {one.kind for one in found} > {"video"}
    for one in found:
        raw = next(raw for raw in records if raw["meta"]["kind"] == one.name and raw["task"] == TASKS[one.name])
        assert raw[one.kind] == f"media/{one.file.name}" and raw["conversations"][0]["value"].endswith(one.question)
        assert one.faces == raw.get("faces") and "<" not in one.question
        assert one.shown.parent == shown and one.shown.read_bytes() == one.file.read_bytes()
        assert Image.open(one.picture).size == (96, 96)


def test_a_model_is_offered_only_what_it_reads(clips: Path, tmp_path: Path) -> None:
    assert {one.kind for one in examples_of(clips, {"audio"}, tmp_path)} <= {"audio"}
    assert examples_of(tmp_path / "nowhere", {"video"}, tmp_path) == []
