"""Clips to try a model on."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.serving.examples import TASKS, Example, find_examples


@pytest.fixture
def clips(corpus: Path, tmp_path: Path) -> Path:
    """The folder of a corpus with a test split."""
    root = tmp_path / "clips"
    root.mkdir()
    (root / "media").symlink_to(corpus / "media")
    shutil.copy(corpus / "train.json", root / "test.json")
    return root


@pytest.fixture
def examples(clips: Path, tmp_path: Path) -> list[Example]:
    (tmp_path / "copies").mkdir()
    return find_examples(clips, {"video", "audio", "image"}, tmp_path / "copies")


def test_examples_are_of_different_scenes_in_the_order_of_the_table(examples: list[Example]) -> None:
    names = [example.name for example in examples]
    assert names == [scene for scene in TASKS if scene in names]
    assert {"talk", "act"} <= set(names) and {example.kind for example in examples} > {"video"}


def test_examples_have_question_copy_and_thumbnail(examples: list[Example], clips: Path, tmp_path: Path) -> None:
    records = json.loads((clips / "test.json").read_text())
    for example in examples:
        key = (example.name, TASKS[example.name])
        record = next(record for record in records if (record["meta"]["kind"], record["task"]) == key)
        assert record[example.kind] == f"media/{example.file.name}"
        assert record["conversations"][0]["value"].endswith(example.question) and "<" not in example.question
        assert example.faces == record.get("faces")
        assert example.copy.parent == tmp_path / "copies" and example.copy.read_bytes() == example.file.read_bytes()
        assert Image.open(example.thumbnail).size == (96, 96)


def test_examples_are_of_kinds_that_the_model_reads(clips: Path, tmp_path: Path) -> None:
    assert {example.kind for example in find_examples(clips, {"audio"}, tmp_path)} <= {"audio"}


def test_missing_corpus_has_no_examples(tmp_path: Path) -> None:
    assert find_examples(tmp_path / "missing", {"video"}, tmp_path) == []
