"""A clip, and entries of data files that use it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnihuman.data.record import BadSample, Record
from omnihuman.records import main
from omnihuman.source.base import Source
from omnihuman.source.root import SPLITS
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


@pytest.fixture
def dataset(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Dataset":
    """Return a data set in the current folder, to be filled with tiny official files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnihuman"])
    return Dataset(root / "talk.mp4")


class Dataset:
    """A tiny copy of a public data set in the folder ``set``, whose clips are all the same."""

    def __init__(self, clip: Path) -> None:
        self.clip, self.folder = clip, Path("set")

    def write(self, name: str, *lines: str) -> None:
        """Write a text file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def add(self, *names: str) -> None:
        """Add clips; the name of an image makes a small one."""
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".jpg", ".png"):
                Image.new("RGB", (16, 16)).save(path)
            else:
                path.hardlink_to(self.clip)

    def records(self, *arguments: str) -> dict[str, list[dict[str, Any]]]:
        """Run ``omnihuman records`` without a sheet, and return the records of every split."""
        main([f"path={self.folder}", "out=out", "overwrite=true", "sheet=0", *arguments])
        files = [Path("out", f"{split}.json") for split in SPLITS]
        return {file.stem: json.loads(file.read_text()) for file in files if file.is_file()}

    def report(self) -> dict[str, Any]:
        """Return the report of the last command."""
        report: dict[str, Any] = json.loads(Path("out/report.json").read_text())
        return report

    def fail(self, *arguments: str) -> str:
        """Return the message of a failing command, which is one line."""
        with pytest.raises(SystemExit) as caught:
            self.records(*arguments)
        message = str(caught.value.code)
        assert message.startswith("error: ") and "\n" not in message
        return message


def summarize(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return file and answer of records."""
    rows = []
    for raw in records:
        file = next(raw[kind] for kind in ("video", "audio", "image") if kind in raw)
        rows.append((file, raw["conversations"][1]["value"]))
    return rows
