"""What benchmarks whose answers are text share: media that must be on disk, tables of annotations, marks of a judge."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Prediction, read_json
from omnihuman.data.record import Record
from omnihuman.judge.base import Judge

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""Of videos that an annotation names without one."""


class Media:
    """Annotated names -> files on disk, and the account of those that are not there.

    Args:
        root: folder of the media.
        missing: ``raise``, or ``skip`` the questions about files that are not there and count them.

    >>> Media(Path("media"), "skip").find("a.mp4", "test.json[0]: video") is None
    True
    """

    def __init__(self, root: Path, missing: Literal["raise", "skip"] = "raise") -> None:
        self.root, self.missing = root, missing
        self.found: int = 0
        self.lost: list[str] = []

    def start(self) -> None:
        """Begin a new account."""
        self.found, self.lost = 0, []

    def find(self, name: str, where: str, suffixes: Sequence[str] = ("",)) -> Path | None:
        """The file of a name; ``None`` where it is not there and may be skipped.

        Args:
            name: path below the root.
            where: file, line and key that name it.
            suffixes: endings that are tried in turn.

        Raises:
            ValueError: the name leaves the root, or nothing is there and nothing may be skipped.
        """
        tried = [self.root / f"{name}{suffix}" for suffix in suffixes]
        # by its words: a link below the root is the user's own, who gathers several data sets
        if not Path(os.path.abspath(tried[0])).is_relative_to(os.path.abspath(self.root)):
            raise ValueError(f"{where}: {name!r} leaves the folder {self.root}; paths are relative to it.")
        file = next((file for file in tried if file.exists()), None)  # a folder of pictures is a video, too
        if file is not None:
            self.found += 1
            return file
        if self.missing == "raise":
            also = f" (nor with {', '.join(suffixes[1:])})" if len(tried) > 1 else ""
            cure = "put it there, correct the line, or set missing_media=skip"
            raise ValueError(f"{where}: there is no file {tried[0]}{also}; {cure}.")
        self.lost.append(f"{where}: {tried[0]}")
        return None

    def protocol(self) -> dict[str, str]:
        """What was lost, in words."""
        if not self.lost:
            return {"missing media": "none" if self.found else self.missing}
        return {"missing media": f"{len(self.lost)} of {self.found + len(self.lost)} skipped, first {self.lost[0]}"}


def to_record(
    file: Path, prompt: str, name: str, source: str, *, sound_only: bool = False,
    start: float = 0.0, end: float | None = None,
) -> Record:  # fmt: skip
    r"""A file and a prompt -> the record of a question whose answer is open.

    >>> to_record(Path("a.mp4"), "Who?", "1", "test.json[0]").messages
    (('user', '<video>\n<audio>\nWho?'), ('assistant', ''))
    """
    kind, slots = ("audio", ("audio",)) if sound_only else ("video", ("video", "audio"))
    text = "".join(f"<{slot}>\n" for slot in slots) + prompt
    return Record(name, file, kind, (("user", text), ("assistant", "")), slots, start, end, source=source)


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a csv file with a head: place and cells, trimmed; lines without any are left out.

    Raises:
        ValueError: there is no such file, it is no UTF-8, or it lacks a column or a cell; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if lacking := [column for column in columns if column not in reader.fieldnames]:
                raise ValueError(f"{path}:1: the columns {lacking} are missing; there are {reader.fieldnames}.")
            for cells in reader:
                place, over = f"{path}:{reader.line_num}", cells.pop(None, None)
                row = {name: (cell or "").strip() for name, cell in cells.items()}
                if over and any(cell.strip() for cell in over):
                    raise ValueError(f"{place}: there are more cells than columns; put quotes round texts with commas.")
                if not any(row.values()):
                    continue
                if empty := [column for column in columns if not row[column]]:
                    raise ValueError(f"{place}: {', '.join(empty)} is empty; fill it in or take the line out.")
                yield place, row
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.reader.line_num}: this is no csv line ({error}).") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: save the file as UTF-8 ({error}).") from error


class TrainingClips:
    """The clips that data files of the training name, and the account of a benchmark's that are among them.

    Args:
        records: one data file or several; without any nothing is marked.
        name: a path -> what names its clip wherever a data set is kept.
    """

    def __init__(self, records: str | Sequence[str], name: Callable[[str], str]) -> None:
        self.paths = tuple(map(Path, [records] if isinstance(records, str) else records))
        self.name = name
        self._known: set[str] | None = None
        self._marked: list[tuple[bool, str]] = []

    def start(self) -> None:
        """Read the files and begin a new account.

        Raises:
            ValueError: a file is missing, no JSON, or no list; the message names it.
        """
        self._known, self._marked = {self.name(video) for path in self.paths for video in _videos(path)}, []

    def mark(self, clip: str, source: str = "") -> dict[str, bool]:
        """What a question's ``meta`` says of its clip: ``in_training``, where data files are named at all."""
        if not self.paths:
            return {}
        self._marked.append((self.name(clip) in (self._known or ()), source))
        return {"in_training": self._marked[-1][0]}

    def protocol(self) -> dict[str, str]:
        """How many clips were trained on, and from where."""
        if not self.paths or self._known is None:
            why = "train_records not read yet" if self.paths else "not checked; train_records names none"
            return {"clips in training": why}
        found = [source for trained, source in self._marked if trained]
        counts = ", ".join(f"{source} {found.count(source)}" for source in sorted(set(found)) if source)
        return {"clips in training": f"{len(found)} of {len(self._marked)}" + (f" ({counts})" if counts else "")}


def _videos(path: Path) -> list[str]:
    """The videos that a data file names."""
    entries = _lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: train_records are lists of records, or of paths; this is none.")
    named = [entry.get("video") if isinstance(entry, Mapping) else entry for entry in entries]
    return [name for name in named if isinstance(name, str)]


def _lines(path: Path) -> list[Any]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file (train_records).")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"{path}:{number}: this is not JSON ({error}); a line is one record.") from error
    return found


def text_of(asked: Prediction) -> tuple[str | None, str]:
    """An answer that is taken as it stands, and the rule."""
    text = (asked.answer or "").strip()
    return (text, "text") if text else (None, "invalid")


def judged_by(judge: Judge | None, figures: str) -> str:
    """Who judges, in words, or which figures are absent because nobody does.

    >>> judged_by(None, "clue_overlap")
    'none: clue_overlap absent'
    """
    return f"none: {figures} absent" if judge is None else judge.id


def marks(
    predictions: Sequence[Prediction], judge: Callable[[Sequence[Prediction]], Sequence[Any]], nothing: Any
) -> list[Any]:
    """The verdict on each answer; the judge sees those that have words, the others get ``nothing``.

    >>> asked = [Prediction("emer", str(n), "", "Why?", "sad", answer) for n, answer in enumerate(["he cries", None])]
    >>> marks(asked, lambda some: [7.0 for _ in some], 0.0)
    [7.0, 0.0]
    """
    answered = [each for each in predictions if text_of(each)[0]]
    given = dict(zip((each.id for each in answered), judge(answered) if answered else (), strict=True))
    return [given.get(each.id, nothing) for each in predictions]
