"""Mixture: sources of records, with the weight of each."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from omnihuman.data.packing import shuffle_indices
from omnihuman.data.record import Entry, Record


@runtime_checkable
class RecordSource(Protocol):
    """The part of an ``omnihuman.source`` that the data uses; sources stand above the data."""

    @property
    def location(self) -> str:
        """The file or folder of the records, for messages."""

    def records(self) -> Iterator[Entry]:
        """Yield the records, always in the same order."""


MixtureEntry = str | RecordSource | Mapping[str, Any]
"""A path, a source, or ``{path, weight}`` or ``{source, weight}``."""


@dataclass(frozen=True, slots=True)
class WeightedSource:
    """A source of a mixture.

    Attributes:
        source: of the records.
        weight: how often each record is used in an epoch.
    """

    source: RecordSource
    weight: float = 1.0


def parse_mixture(
    records: MixtureEntry | Sequence[MixtureEntry], build_source: Callable[[str], RecordSource]
) -> list[WeightedSource]:
    """Return the sources of a mixture with their weights.

    Args:
        records: an entry or a list of them.
        build_source: path -> source.

    Raises:
        ValueError: an entry is invalid.
    """
    if isinstance(records, str | RecordSource | Mapping):
        records = [records]
    return [_parse_entry(entry, build_source) for entry in records]


def _parse_entry(entry: MixtureEntry, build_source: Callable[[str], RecordSource]) -> WeightedSource:
    fields = dict(entry) if isinstance(entry, Mapping) else {"source": entry}
    if set(fields) - {"weight"} not in ({"path"}, {"source"}):
        raise ValueError(f"data.records: an entry must be a path, {{path, weight}} or {{source, weight}}, got {entry}.")
    source: Any = fields.get("source", fields.get("path"))
    weight = fields.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ValueError(f"data.records: the weight of {source} must be a number >= 0, got {weight!r}.")
    return WeightedSource(parse_source(source, build_source, "data.records"), float(weight))


def parse_source(entry: Any, build_source: Callable[[str], RecordSource], key: str) -> RecordSource:
    """Return the source of a path, or the source itself.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(entry, str):
        return build_source(entry)
    if not isinstance(entry, RecordSource):
        raise ValueError(f"{key}: expected a path or a source, got {entry!r}; a preset of conf/source is a source.")
    return entry


def build_source(source: Callable[[str, str], RecordSource] | None, root: str, path: str) -> RecordSource:
    """Return the source of a path.

    Raises:
        ValueError: there is nothing that builds it.
    """
    if source is None:
        raise ValueError(f"data.records: the path {path!r} needs data.source, which reads it.")
    return source(path, root)


def check_tasks(
    tasks: Sequence[str] | Mapping[str, int | float] | None,
) -> Sequence[str] | Mapping[str, int | float] | None:
    """Return the tasks.

    Raises:
        ValueError: a weight is negative.
    """
    if isinstance(tasks, Mapping):
        invalid = {task: weight for task, weight in tasks.items() if not float(weight) >= 0}
        if invalid:
            raise ValueError(f"data.tasks: a weight must be 0 or more, got {invalid}.")
    return tasks


def select_tasks(entries: Iterable[Entry], tasks: Collection[str] | None, left_out: Counter[str]) -> Iterator[Entry]:
    """Yield entries of these tasks, or of no task.

    Args:
        entries: of a source.
        tasks: to use, ``None`` for all.
        left_out: gets the numbers of records of other tasks.
    """
    for entry in entries:
        if isinstance(entry, Record) and tasks is not None and entry.task is not None and entry.task not in tasks:
            left_out[entry.task] += 1
        else:
            yield entry


def describe_other_tasks(left_out: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Yield a line for each source with records of tasks that are not used.

    >>> list(describe_other_tasks({"a.json": Counter(asr=2), "b.json": Counter()}))
    ['a.json: 2 records are of tasks that data.tasks leaves out (2 asr)']
    """
    for location, counts in left_out.items():
        names = ", ".join(f"{count} {task}" for task, count in counts.most_common())
        if counts:
            yield f"{location}: {counts.total()} records are of tasks that data.tasks leaves out ({names})"


def select_epoch(mixture: Sequence[tuple[Sequence[int], float]], seed: int, epoch: int) -> list[int]:
    """Return the indices of an epoch's samples in shuffled order.

    Args:
        mixture: indices of samples with their weight: how often each is used.
        seed: of the order, and of the choice where a weight is no whole number.
        epoch: its number.
    """
    chosen: list[int] = []
    for number, (indices, weight) in enumerate(mixture):
        repeats = int(weight)
        num_more = round((weight - repeats) * len(indices))
        more = shuffle_indices(len(indices), seed + 1 + number, epoch)[:num_more]
        chosen += [*indices] * repeats
        chosen += [indices[position] for position in more]
    return [chosen[position] for position in shuffle_indices(len(chosen), seed, epoch)]
