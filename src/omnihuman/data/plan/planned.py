"""Samples whose sizes are known: a sequence of them, in memory or in tables."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from omnihuman.data.media import Header
from omnihuman.data.record import Record
from omnihuman.data.sharing import hash_part

HASHED_AT_ONCE = 2**16
"""Lines of the digest that are joined before they are hashed."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A sample whose size is known.

    Attributes:
        record: the record in one view.
        header: of its files.
        amounts: frames, audio samples ... by field.
        counts: tokens by slot.
        length: tokens of the prompt, slots expanded.
        targets: supervised tokens among them.
        quarantine_file: list that a bad file of the sample is added to.
    """

    record: Record
    header: Header
    amounts: Mapping[str, int]
    counts: Mapping[str, int]
    length: int
    targets: int
    quarantine_file: Path | None = None


@dataclass(frozen=True, slots=True)
class TaskColumn:
    """The task of each sample.

    Attributes:
        names: of the tasks, in the order of their first samples; ``None`` for samples without one.
        codes: place in ``names``, for each sample.
    """

    names: tuple[str | None, ...]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, tasks: Iterable[str | None]) -> "TaskColumn":
        """Return the column of a list.

        >>> TaskColumn.of(["asr", None, "asr"]).codes.tolist()
        [0, 1, 0]
        """
        numbers: dict[str | None, int] = {}
        codes = [numbers.setdefault(task, len(numbers)) for task in tasks]
        return cls(tuple(numbers), np.array(codes, np.int32))


@dataclass(slots=True)
class PlanReport:
    """The result of planning besides the samples.

    Attributes:
        skipped: descriptions of the samples that cannot be used.
        cut_answers: places and ids of the samples of whose answers ``max_length`` has cut something.
        stream_notes: on files with several streams of a kind, without repetition.
        num_with_frames: planned samples with frames.
        num_unlocated: those of them whose faces an encoder reads, but no box and no detector locates.
        num_dropped: records from whose text a slot was removed.
    """

    skipped: list[dict[str, Any]] = field(default_factory=list)
    cut_answers: list[str] = field(default_factory=list)
    stream_notes: dict[str, None] = field(default_factory=dict)
    num_with_frames: int = 0
    num_unlocated: int = 0
    num_dropped: int = 0

    def add(self, report: "PlanReport") -> None:
        """Add what was met with other records."""
        self.skipped += report.skipped
        self.cut_answers += report.cut_answers
        self.stream_notes |= report.stream_notes
        self.num_with_frames += report.num_with_frames
        self.num_unlocated += report.num_unlocated
        self.num_dropped += report.num_dropped


class Plan(Sequence[Planned]):
    """Planned samples in order.

    Attributes:
        lengths: tokens of each sample, int32.
        targets: supervised tokens of each sample, int32.
        tasks: of the samples.
        groups: of samples of the same part of a clip, uint64, see ``sharing.hash_part``.
        report: what was met while they were planned.
        digest: a hash of the ids, lengths and targets: batches and their order follow from it.
    """

    lengths: NDArray[np.int32]
    targets: NDArray[np.int32]
    tasks: TaskColumn
    groups: NDArray[np.uint64]
    report: PlanReport
    digest: str

    @overload
    def __getitem__(self, index: int) -> Planned: ...

    @overload
    def __getitem__(self, index: slice) -> list[Planned]: ...

    def __getitem__(self, index: int | slice) -> Planned | list[Planned]:
        if isinstance(index, slice):
            return [self.read(number) for number in range(*index.indices(len(self)))]
        return self.read(range(len(self))[index])

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def read(self, index: int) -> Planned:
        """Return one sample; ``index`` is 0 or more."""

    @abstractmethod
    def read_ids(self, indices: NDArray[np.int32]) -> list[str]:
        """Return the ids of the records of some samples."""


class PlanList(Plan):
    """Planned samples in memory.

    Args:
        samples: in order.
        report: of their planning.
    """

    def __init__(self, samples: Iterable[Planned], report: PlanReport | None = None) -> None:
        self.samples, self.report = list(samples), report or PlanReport()
        self.lengths = np.array([planned.length for planned in self.samples], np.int32)
        self.targets = np.array([planned.targets for planned in self.samples], np.int32)
        self.tasks = TaskColumn.of(planned.record.task for planned in self.samples)

    @cached_property
    def groups(self) -> NDArray[np.uint64]:  # type: ignore[override]
        return np.array([hash_part(planned.record) for planned in self.samples], np.uint64)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        return digest_lines((entry.record.id, entry.length, entry.targets) for entry in self.samples)

    def read(self, index: int) -> Planned:
        return self.samples[index]

    def read_ids(self, indices: NDArray[np.int32]) -> list[str]:
        return [self.samples[index].record.id for index in indices.tolist()]


class JoinedPlan(Plan):
    """Several plans, one after the other.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[Plan]) -> None:
        self.parts, self.report = list(parts), PlanReport()
        for part in parts:
            self.report.add(part.report)
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.targets = np.concatenate([part.targets for part in parts])
        self.starts = np.cumsum([0, *map(len, parts)])
        self.digest = digest_lines((part.digest,) for part in parts)

    @cached_property
    def tasks(self) -> TaskColumn:  # type: ignore[override]
        numbers: dict[str | None, int] = {}
        codes = []
        for part in self.parts:
            places = [numbers.setdefault(name, len(numbers)) for name in part.tasks.names]
            codes.append(np.array(places, np.int32)[part.tasks.codes])
        return TaskColumn(tuple(numbers), np.concatenate(codes))

    @cached_property
    def groups(self) -> NDArray[np.uint64]:  # type: ignore[override]
        return np.concatenate([part.groups for part in self.parts])

    def read(self, index: int) -> Planned:
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        return self.parts[number].read(index - int(self.starts[number]))

    def read_ids(self, indices: NDArray[np.int32]) -> list[str]:
        ids = np.empty(len(indices), object)
        numbers = np.searchsorted(self.starts, indices, "right") - 1
        for number, part in enumerate(self.parts):
            is_in_part = numbers == number
            ids[is_in_part] = part.read_ids(indices[is_in_part] - int(self.starts[number]))
        return list(ids)


def digest_lines(rows: Iterable[tuple[Any, ...]]) -> str:
    """Return a hash of rows of values, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for lines in _join(rows):
        digest.update(lines.encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def _join(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    lines = list[str]()
    for row in rows:
        lines.append("\t".join(map(str, row)) + "\n")
        if len(lines) == HASHED_AT_ONCE:
            yield "".join(lines)
            lines = []
    yield "".join(lines)
