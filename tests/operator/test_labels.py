"""Columns of what the records of a clip say."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.operator.labels import Labels
from tests.operator.conftest import apply_one, build_row


def write_record(task: str, answer: str, **meta: Any) -> str:
    chat = [{"from": "human", "value": "?"}, {"from": "gpt", "value": answer}]
    return json.dumps({"id": task, "task": task, "conversations": chat, "meta": meta})


def test_the_first_record_with_a_value_counts(tmp_path: Path) -> None:
    records = [write_record("body", "She waves."), write_record("emotion", "sad", person=7), "{}"]
    row = build_row(tmp_path / "a.mp4", records=records[:2], source="DFEW/clips/a.mp4")
    values = {"label": "answer", "person": "meta.person", "dataset": "folder", "other": "meta.person.name"}
    operator = Labels(values, tasks=["emotion"])
    expected = {"label": "sad", "person": "7", "dataset": "DFEW", "other": None}
    assert apply_one(operator, tmp_path, row) == expected
    assert apply_one(operator, tmp_path, build_row(tmp_path / "a.mp4")) == dict.fromkeys(values)
    assert apply_one(Labels({"label": "answer"}), tmp_path, row) == {"label": "She waves."}


def test_a_column_is_needed() -> None:
    with pytest.raises(ValueError, match=r"values=.*label: answer"):
        Labels({})
