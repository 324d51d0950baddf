"""Shared parts of benchmarks: media files, annotation tables, training overlap and judged answers."""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from omnihuman.benchmark.base import INVALID, Prediction, as_tuple
from omnihuman.data.record import Record
from omnihuman.data.text_files import read_json
from omnihuman.judge.base import Judge
from omnihuman.metric.answer import CUT, final_answer
from omnihuman.modality import View, prompt_head

T = TypeVar("T")
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""Suffixes of videos that an annotation names without one."""


class Media:
    """Annotated names -> files on disk, with counts of found and skipped ones.

    Args:
        root: folder of the media.
        missing: ``raise``, or ``skip`` questions about missing files and count them.

    >>> Media(Path("media"), "skip").find("a.mp4", "test.json[0]: video") is None
    True
    """

    def __init__(self, root: Path, missing: Literal["raise", "skip"] = "raise") -> None:
        self.root, self.missing = root, missing
        self.num_found: int = 0
        self.skipped: list[str] = []

    def reset(self) -> None:
        """Reset the counts."""
        self.num_found, self.skipped = 0, []

    def find(self, name: str, location: str, suffixes: Sequence[str] = ("",)) -> Path | None:
        """Find the file of a name; ``None`` if it is missing and skipped.

        Args:
            name: path below the root.
            location: file, line and key of the annotation.
            suffixes: to try in order.

        Raises:
            ValueError: the path is outside the root, or the file is missing and ``missing`` is ``raise``.
        """
        candidates = [self.root / f"{name}{suffix}" for suffix in suffixes]
        # Compared without resolving links: a link below the root is the user's own, who combines several datasets.
        if not Path(os.path.abspath(candidates[0])).is_relative_to(os.path.abspath(self.root)):
            raise ValueError(f"{location}: {name!r} is outside the folder {self.root}; paths must be relative to it.")
        for file in candidates:
            if file.exists():  # a folder of frames is a video too
                self.num_found += 1
                return file
        if self.missing == "raise":
            alternatives = f" (nor with {', '.join(suffixes[1:])})" if len(candidates) > 1 else ""
            cure = "add the file, correct the line, or set missing_media=skip"
            raise ValueError(f"{location}: there is no file {candidates[0]}{alternatives}; {cure}.")
        self.skipped.append(f"{location}: {candidates[0]}")
        return None

    def protocol(self) -> dict[str, str]:
        """Describe how many files were skipped."""
        if self.skipped:
            total = self.num_found + len(self.skipped)
            return {"missing media": f"{len(self.skipped)} of {total} skipped, first {self.skipped[0]}"}
        if self.num_found:
            return {"missing media": "none"}
        return {"missing media": self.missing}


def build_record(
    file: Path,
    prompt: str,
    name: str,
    location: str,
    *,
    audio_only: bool = False,
    start: float = 0.0,
    end: float | None = None,
) -> Record:
    r"""Build the record of a question, with an empty answer.

    >>> build_record(Path("a.mp4"), "Who?", "1", "test.json[0]").messages
    (('user', '<video>\n<audio>\nWho?'), ('assistant', ''))
    """
    kind = "audio" if audio_only else "video"
    slots = View.of_kind(kind).slots
    messages = (("user", prompt_head(kind) + prompt), ("assistant", ""))
    return Record(name, file, kind, messages, slots, start, end, location=location)


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a csv file with a header: location and stripped cells of each line; empty lines are skipped.

    Raises:
        ValueError: the file is missing or not UTF-8, or lacks a column or a cell.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise ValueError(f"{path}:1: the columns {missing} are missing; there are {reader.fieldnames}.")
            for cells in reader:
                location = f"{path}:{reader.line_num}"
                row = _strip_cells(cells, location)
                if any(row.values()):
                    _check_cells(row, columns, location)
                    yield location, row
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.reader.line_num}: this is not a csv line ({error}).") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: save the file as UTF-8 ({error}).") from error


def _strip_cells(cells: dict[Any, Any], location: str) -> dict[str, str]:
    surplus = cells.pop(None, None) or ()  # DictReader collects surplus cells under the key None
    if any(cell.strip() for cell in surplus):
        raise ValueError(f"{location}: there are more cells than columns; put quotes round texts with commas.")
    return {name: (cell or "").strip() for name, cell in cells.items()}


def _check_cells(row: Mapping[str, str], columns: Sequence[str], location: str) -> None:
    empty = [column for column in columns if not row[column]]
    if empty:
        raise ValueError(f"{location}: {', '.join(empty)} must not be empty; fill it in or remove the line.")


class TrainingClips:
    """Clips in the data files of the training, and how many of a benchmark's clips are among them.

    Args:
        records: one data file or several; none disables the check.
        name: path -> name of its clip, independent of the folder of the dataset.
    """

    def __init__(self, records: str | Sequence[str], name: Callable[[str], str]) -> None:
        self.paths = tuple(Path(path) for path in as_tuple(records))
        self.name = name
        self._training: set[str] | None = None
        self._checked: list[tuple[bool, str]] = []

    def reset(self) -> None:
        """Read the data files and reset the counts.

        Raises:
            ValueError: a file is missing, not JSON, or not a list.
        """
        self._training, self._checked = set(), []
        for path in self.paths:
            self._training.update(self.name(video) for video in _read_videos(path))

    def check(self, clip: str, source: str = "") -> dict[str, bool]:
        """Return the ``meta`` entry of a clip: ``in_training``; empty without data files."""
        if not self.paths:
            return {}
        in_training = self.name(clip) in (self._training or ())
        self._checked.append((in_training, source))
        return {"in_training": in_training}

    def protocol(self) -> dict[str, str]:
        """Describe how many clips are in the training data, in total and by source."""
        if not self.paths:
            return {"clips in training": "not checked; train_records is empty"}
        if self._training is None:
            return {"clips in training": "train_records not read yet"}
        sources = [source for in_training, source in self._checked if in_training]
        text = f"{len(sources)} of {len(self._checked)}"
        counts = sorted(Counter(filter(None, sources)).items())
        if counts:
            text += f" ({', '.join(f'{source} {count}' for source, count in counts)})"
        return {"clips in training": text}


def _read_videos(path: Path) -> list[str]:
    """Read the names of the videos in a data file."""
    entries = _read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: got {type(entries).__name__}; train_records must be lists of records or of paths.")
    videos = []
    for entry in entries:
        video = entry.get("video") if isinstance(entry, Mapping) else entry
        if isinstance(video, str):
            videos.append(video)
    return videos


def _read_json_lines(path: Path) -> list[Any]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file (train_records).")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: this is not JSON ({error}); a line must be one record.") from error
    return entries


def parse_text(prediction: Prediction) -> tuple[str | None, str]:
    """Parse a free-form answer: its text without reasoning, and the rule."""
    text = final_answer(prediction.answer)
    if text is None:
        return CUT
    return (text, "text") if text else INVALID


def describe_judge(judge: Judge | None, scores: str) -> str:
    """Describe the judge, or the scores that are missing without one.

    >>> describe_judge(None, "clue_overlap")
    'none: clue_overlap absent'
    """
    return f"none: {scores} absent" if judge is None else judge.id


def judge_answers(
    predictions: Sequence[Prediction], judge: Callable[[Sequence[Prediction]], Sequence[T]], default: T
) -> list[T]:
    """Judge the predictions that have an answer; the others get the default.

    >>> answers = ["he cries", None]
    >>> predictions = [Prediction("emer", str(n), "", "Why?", "sad", answer) for n, answer in enumerate(answers)]
    >>> judge_answers(predictions, lambda answered: [7.0 for _ in answered], 0.0)
    [7.0, 0.0]
    """
    answered = [prediction for prediction in predictions if parse_text(prediction)[0]]
    if not answered:
        return [default] * len(predictions)
    verdicts = {prediction.id: verdict for prediction, verdict in zip(answered, judge(answered), strict=True)}
    return [verdicts.get(prediction.id, default) for prediction in predictions]
