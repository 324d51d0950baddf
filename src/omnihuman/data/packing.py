"""Assign samples to the micro-batches of each step on each rank: a pure function of seed and epoch."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The samples of one packed sequence.

    Attributes:
        indices: of the samples; empty for a rank without work in a step.
        step_targets: supervised tokens of the whole optimizer step.
        epoch: that it is part of.
        step_samples: samples of the whole optimizer step.
    """

    indices: tuple[int, ...]
    step_targets: int
    epoch: int = 0
    step_samples: int = 0


Step = tuple[MicroBatch, ...]
"""The micro-batches of one rank in an optimizer step."""


def shuffle_indices(count: int, seed: int, epoch: int) -> list[int]:
    """Return ``range(count)`` in the order of an epoch."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def check_lengths(lengths: Sequence[int], max_tokens: int) -> None:
    """Check that every sample fits into a packed sequence.

    Raises:
        ValueError: one has more than ``max_tokens``.
    """
    longest = max(lengths, default=0)
    if longest > max_tokens:
        raise ValueError(
            f"the longest sample has {longest} tokens, a packed sequence holds {max_tokens}: raise recipe.max_tokens, "
            "use fewer frames, or cut samples with data.max_length."
        )


def pack_epoch(
    lengths: Sequence[int],
    targets: Sequence[int],
    order: Sequence[int],
    *,
    batch_size: int,
    max_tokens: int,
    world: int,
    rank: int,
    epoch: int = 0,
) -> list[Step]:
    """Return the steps of one rank in one epoch, each of ``batch_size`` samples over all ranks.

    A step has the same samples for any ``world``. All ranks have the same number of micro-batches in it, the least with
    which none exceeds ``max_tokens``.

    Raises:
        ValueError: a single sample exceeds ``max_tokens``.

    >>> epoch = dict(lengths=[5, 4, 3, 2], targets=[1, 1, 1, 1], order=[0, 1, 2, 3], batch_size=4, max_tokens=7)
    >>> [[micro_batch.indices for micro_batch in pack_epoch(**epoch, world=2, rank=rank)[0]] for rank in (0, 1)]
    [[(0, 3)], [(1, 2)]]
    """
    check_lengths(lengths, max_tokens)
    steps = []
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        step_targets = sum(targets[index] for index in indices)
        bins = _pack_step(lengths, indices, max_tokens, world)
        steps.append(
            tuple(MicroBatch(tuple(members), step_targets, epoch, len(indices)) for members in bins[rank::world])
        )
    return steps


def _pack_step(lengths: Sequence[int], step: Sequence[int], max_tokens: int, world: int) -> list[list[int]]:
    """Spread the samples of a step over the fewest micro-batches for each rank that hold them."""
    num_tokens = sum(lengths[index] for index in step)
    count = max(1, -(-num_tokens // (world * max_tokens)))
    bins = _spread(lengths, step, world * count)
    while _max_load(lengths, bins) > max_tokens:
        count += 1
        bins = _spread(lengths, step, world * count)
    return bins


def _spread(lengths: Sequence[int], step: Sequence[int], count: int) -> list[list[int]]:
    """Spread the samples of a step over bins, the longest first into the emptiest, so that all ranks work as long."""
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]  # a heap
    for index in sorted(step, key=lambda index: (-lengths[index], index)):
        load, number = loads[0]
        bins[number].append(index)
        heapreplace(loads, (load + lengths[index], number))
    return bins


def _max_load(lengths: Sequence[int], bins: Sequence[Sequence[int]]) -> int:
    loads = []
    for indices in bins:
        loads.append(sum(lengths[index] for index in indices))
    return max(loads)
