"""Lines of Data-Juicer become records."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.source.data_juicer import DataJuicerSource

from .conftest import read_entries


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_text_is_the_answer(root: Path, tmp_path: Path) -> None:
    line = {
        "videos": [str(root / "talk.mp4")],
        "text": "<__dj__video> She talks. <|__dj__eoc|>",
        "__dj__stats__": {"a": 1},
    }
    path = write_lines(tmp_path / "a.jsonl", line)
    ((record,), errors) = read_entries(build(compose_part("source", "data_juicer"))(path, root))
    assert not errors and record.file == root / "talk.mp4" and record.task == "caption"
    assert record.messages[-1][1] == "She talks." and record.slots == ("video",)
    assert record.meta["meta"] == {"stats": {"a": 1}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"videos": ["a.mp4", "b.mp4"], "text": "x"}, "several_files"),
        ({"text": "x"}, "no_media"),
        ("x", "malformed_record"),
        ({"videos": ["gone.mp4"], "text": "x"}, "outside_root"),
    ],
)
def test_other_lines_are_errors_with_their_place(root: Path, tmp_path: Path, line: Any, reason: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", line)
    records, (error,) = read_entries(DataJuicerSource(path, root))
    assert not records and error.reason == reason and f"{path}:1" in str(error)


def test_a_line_without_a_text_has_no_conversation(root: Path, tmp_path: Path) -> None:
    path = write_lines(root / "a.jsonl", {"videos": ["talk.mp4"], "text": "<__dj__video> <|__dj__eoc|>"})
    ((_, raw),) = DataJuicerSource(path, root).entries()
    assert raw == {"video": "talk.mp4", "task": "caption"}
    path.unlink()
