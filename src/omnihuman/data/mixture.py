"""Mixture: sources of records, with the weight of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnihuman.data.packing import Indices, shuffle_indices
from omnihuman.data.plan.planned import TaskColumn
from omnihuman.data.tasks import RecordSource, Tasks, task_weight

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


@dataclass(frozen=True, slots=True)
class MixturePart:
    """The samples of one source and task.

    Attributes:
        location: of the source.
        task: of the samples, ``None`` for those without a task.
        indices: of the samples.
        weight: how often each is used in an epoch.
    """

    location: str
    task: str | None
    indices: Indices
    weight: float

    @property
    def num_extra(self) -> int:
        """Samples that are used once more in an epoch, where the weight is no whole number."""
        return round((self.weight - int(self.weight)) * len(self.indices))

    @property
    def num_used(self) -> int:
        """Uses of samples in an epoch."""
        return int(self.weight) * len(self.indices) + self.num_extra


def parse_mixture(
    records: MixtureEntry | Sequence[MixtureEntry], build_source: Callable[[str], RecordSource]
) -> list[WeightedSource]:
    """Return the sources of a mixture with their weights.

    Args:
        records: an entry or a list of them.
        build_source: path -> source.

    Raises:
        ValueError: an entry is invalid, or all weights are 0.
    """
    if isinstance(records, str | RecordSource | Mapping):
        records = [records]
    sources = [_parse_entry(entry, build_source) for entry in records]
    if sources and not any(source.weight for source in sources):
        names = ", ".join(source.source.location for source in sources)
        raise ValueError(f"data.records: the weight of every source is 0 ({names}): raise one above 0.")
    return sources


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


def build_source(source: Callable[[str, Any], RecordSource] | None, root: str | None, path: str) -> RecordSource:
    """Return the source of a path.

    Raises:
        ValueError: there is nothing that builds it.
    """
    if source is None:
        raise ValueError(f"data.records: the path {path!r} needs data.source, which reads it.")
    return source(path, root)


def plan_mixture(sources: Sequence[WeightedSource], planned: Sequence[TaskColumn], tasks: Tasks) -> list[MixturePart]:
    """Return the parts of a mixture: the samples of every source and task, numbered over all sources.

    Args:
        sources: of the samples.
        planned: the tasks of the samples of each source.
        tasks: how often each task is used.
    """
    parts: list[MixturePart] = []
    start = 0
    for entry, column in zip(sources, planned, strict=True):
        codes, firsts = np.unique(column.codes, return_index=True)
        for code in codes[np.argsort(firsts)]:  # a task comes where its first sample does
            task, indices = column.names[code], np.flatnonzero(column.codes == code) + start
            weight = entry.weight * task_weight(tasks, task)
            parts.append(MixturePart(entry.source.location, task, indices.astype(np.int32), weight))
        start += len(column.codes)
    return parts


def select_epoch(mixture: Sequence[MixturePart], seed: int, epoch: int) -> Indices:
    """Return the indices of an epoch's samples in shuffled order.

    Args:
        mixture: the samples with their weights.
        seed: of the order, and of the choice where a weight is no whole number.
        epoch: its number.
    """
    chosen: list[Indices] = []
    for number, part in enumerate(mixture):
        chosen += [part.indices] * int(part.weight)
        if part.num_extra:
            more = shuffle_indices(len(part.indices), seed + 1 + number, epoch)[: part.num_extra]
            chosen.append(part.indices[more])
    indices = np.concatenate([np.empty(0, np.int32), *chosen])
    return indices[shuffle_indices(len(indices), seed, epoch)]


def open_sources(
    records: MixtureEntry | Sequence[MixtureEntry],
    val_records: str | RecordSource | None,
    build: Callable[[str], RecordSource],
) -> tuple[list[WeightedSource], RecordSource | None]:
    """Return the sources of the training and of the validation; for the rest, see ``parse_mixture``."""
    val_source = None if val_records is None else parse_source(val_records, build, "data.val_records")
    return parse_mixture(records, build), val_source
