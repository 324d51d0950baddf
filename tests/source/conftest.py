"""A clip, and entries of data files that use it."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.record import BadSample, Record
from omnihuman.source.base import Source
from tests.data.conftest import write_clip


def build_entry(**fields: Any) -> dict[str, Any]:
    """Return a valid entry with other fields in addition."""
    turns = [{"from": "human", "value": "<video>\n<audio>\nWho is it?"}, {"from": "gpt", "value": "A man."}]
    return {"id": "7", "video": "talk.mp4", "conversations": turns} | fields


def read_entries(source: Source) -> tuple[list[Record], list[BadSample]]:
    """Return the valid records and the errors of a source."""
    records, errors = [], []
    for entry in source.records():
        if isinstance(entry, Record):
            records.append(entry)
        else:
            errors.append(entry[1])
    return records, errors


def write_lines(path: Path, *entries: Any) -> Path:
    """Write a file of JSON lines."""
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return path


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the clip ``talk.mp4``. Tests do not change it."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "talk.mp4")
    return folder
