"""Data that is connected to stand-ins for a model, and records of media of every kind."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.module import OmniData
from omnihuman.source.jsonl import JsonlSource
from tests.data.conftest import CHATML, WITH_FACES, count_tokens, media_root, tokenizer

__all__ = ["media_root", "tokenizer"]

QUESTION = "<video>\n<audio>\nWho?"


def write_records(path: Path, *entries: dict[str, Any]) -> Path:
    """Write short entries as records: a ``question``, an ``answer`` and keys of a record."""
    lines = []
    for number, overrides in enumerate(entries):
        entry = {"id": f"r{number}", "video": "talk.mp4", "question": QUESTION, "answer": "A man."} | overrides
        if "audio" in entry or "image" in entry:
            del entry["video"]
        turns = [{"from": entry.pop("role", "human"), "value": entry.pop("question")}]
        turns.append({"from": "gpt", "value": entry.pop("answer")})
        lines.append(json.dumps({"conversations": turns, **entry}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def build_data(media_root: Path, tokenizer: Any) -> Callable[..., OmniData]:
    """Return a function: file of records -> connected data."""

    def build(records: Path, **options: Any) -> OmniData:
        options = {
            "num_frames": 4,
            "batch_size": 2,
            "max_tokens": 700,
            "on_bad_sample": "skip",
            "max_skipped": 1.0,
        } | options
        data = OmniData(str(records), options.pop("root", str(media_root)), source=JsonlSource, **options)
        data.connect(WITH_FACES, count_tokens, tokenizer, CHATML)
        return data

    return build


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Print no progress."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    yield
