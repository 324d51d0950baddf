"""Which sample goes into which packed row of which step, on which rank: a pure function of seed and epoch."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Source = str | Mapping[str, Any]
"""A data file, or ``{path, weight}``."""


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row.

    Attributes:
        samples: indices of its samples; none for a rank that has nothing to do in a step.
        step_targets: supervised tokens of the whole optimizer step that it belongs to.
    """

    samples: tuple[int, ...]
    step_targets: int


def source_of(entry: Source) -> dict[str, Any]:
    """A data file of the mixture, checked.

    Raises:
        ValueError: it is neither a path nor a path with a weight.

    >>> source_of("a.json")
    {'path': 'a.json', 'weight': 1.0}
    """
    given = {"path": entry} if isinstance(entry, str) else dict(entry)
    if set(given) - {"path", "weight"} or "path" not in given:
        raise ValueError(f"data.records: an entry is a path or {{path, weight}}, found {given}.")
    weight = given.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ValueError(f"data.records: the weight of {given['path']} is a number of 0 or more, found {weight!r}.")
    return {"path": str(given["path"]), "weight": float(weight)}


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """All indices in the order of an epoch."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def rows_per_step(lengths: Sequence[int], order: Sequence[int], batch_size: int, max_tokens: int, world: int) -> int:
    """The least number of rows per rank and step with which no row of an epoch exceeds ``max_tokens``.

    Raises:
        ValueError: a single sample exceeds ``max_tokens``.
    """
    if (longest := max(lengths, default=0)) > max_tokens:
        raise ValueError(
            f"the longest sample has {longest} tokens, a packed row holds {max_tokens}: raise stage.max_tokens, use "
            "fewer frames, or cut samples with data.max_length."
        )
    rows = 1
    for start in range(0, len(order), batch_size):
        while max(_loads(lengths, order[start : start + batch_size], world * rows)) > max_tokens:
            rows += 1
    return rows


def plan_epoch(
    lengths: Sequence[int],
    targets: Sequence[int],
    order: Sequence[int],
    *,
    batch_size: int,
    rows: int,
    world: int,
    rank: int,
    max_tokens: int | None = None,
) -> list[Row]:
    """The rows of one rank for one epoch: ``rows`` for every step of ``batch_size`` samples.

    Each step's samples are spread over ``world * rows`` rows, the longest first into the row with the fewest tokens, so
    that all ranks work equally long. The steps hold the same samples whatever ``world`` is.

    Raises:
        ValueError: a row would hold more than ``max_tokens``.

    >>> plan = dict(lengths=[5, 4, 3, 2], targets=[1, 1, 1, 1], order=[0, 1, 2, 3], batch_size=4, rows=1, world=2)
    >>> [plan_epoch(**plan, rank=rank)[0].samples for rank in (0, 1)]
    [(0, 3), (1, 2)]
    """
    planned = []
    for start in range(0, len(order), batch_size):
        step = order[start : start + batch_size]
        total = sum(targets[index] for index in step)
        bins = _spread(lengths, step, world * rows)
        fullest = max(sum(lengths[index] for index in row) for row in bins)
        if max_tokens is not None and fullest > max_tokens:
            raise ValueError(
                f"{len(step)} samples do not fit into {rows} rows on each of {world} ranks: the fullest would have "
                f"{fullest} tokens, a row holds {max_tokens}. Raise stage.max_tokens or lower stage.batch_size."
            )
        planned += [Row(tuple(bins[row * world + rank]), total) for row in range(rows)]
    return planned


def _spread(lengths: Sequence[int], step: Sequence[int], count: int) -> list[list[int]]:
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(step, key=lambda index: (-lengths[index], index)):
        lightest = loads.index(min(loads))
        bins[lightest].append(index)
        loads[lightest] += lengths[index]
    return bins


def _loads(lengths: Sequence[int], step: Sequence[int], count: int) -> list[int]:
    return [sum(lengths[index] for index in row) for row in _spread(lengths, step, count)]
