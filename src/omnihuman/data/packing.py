"""Assign samples to the micro-batches of each step on each rank: a pure function of seed and epoch."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


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


def shuffle_indices(count: int, seed: int, epoch: int) -> list[int]:
    """Return ``range(count)`` in the order of an epoch."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def count_micro_batches(
    lengths: Sequence[int], order: Sequence[int], batch_size: int, max_tokens: int, world: int
) -> int:
    """Return the least number of micro-batches per rank and step of which none exceeds ``max_tokens`` in an epoch.

    Raises:
        ValueError: a single sample exceeds ``max_tokens``.
    """
    longest = max(lengths, default=0)
    if longest > max_tokens:
        raise ValueError(
            f"the longest sample has {longest} tokens, a packed sequence holds {max_tokens}: raise recipe.max_tokens, "
            "use fewer frames, or cut samples with data.max_length."
        )
    count = 1
    for start in range(0, len(order), batch_size):
        step = order[start : start + batch_size]
        while _max_load(lengths, _spread(lengths, step, world * count)) > max_tokens:
            count += 1
    return count


def pack_epoch(
    lengths: Sequence[int],
    targets: Sequence[int],
    order: Sequence[int],
    *,
    batch_size: int,
    micro_batches: int,
    world: int,
    rank: int,
    max_tokens: int | None = None,
    epoch: int = 0,
) -> list[MicroBatch]:
    """Return the micro-batches of one rank in one epoch: ``micro_batches`` for every step of ``batch_size`` samples.

    The samples of a step are spread over ``world * micro_batches`` bins, the longest first into the bin with the
    fewest tokens, so that all ranks work equally long. A step has the same samples for any ``world``.

    Raises:
        ValueError: a bin exceeds ``max_tokens``.

    >>> epoch = dict(lengths=[5, 4, 3, 2], targets=[1, 1, 1, 1], order=[0, 1, 2, 3], batch_size=4, micro_batches=1)
    >>> [pack_epoch(**epoch, world=2, rank=rank)[0].indices for rank in (0, 1)]
    [(0, 3), (1, 2)]
    """
    packed = []
    for start in range(0, len(order), batch_size):
        step = order[start : start + batch_size]
        step_targets = sum(targets[index] for index in step)
        bins = _spread(lengths, step, world * micro_batches)
        load = _max_load(lengths, bins)
        if max_tokens is not None and load > max_tokens:
            raise ValueError(
                f"{len(step)} samples do not fit into {micro_batches} micro-batches on each of {world} ranks: the "
                f"fullest would have {load} tokens, the limit is {max_tokens}. Raise recipe.max_tokens or lower "
                "recipe.batch_size."
            )
        for number in range(micro_batches):
            packed.append(MicroBatch(tuple(bins[number * world + rank]), step_targets, epoch, len(step)))
    return packed


def _spread(lengths: Sequence[int], step: Sequence[int], count: int) -> list[list[int]]:
    """Spread the samples of a step over bins, the longest first into the emptiest."""
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(step, key=lambda index: (-lengths[index], index)):
        emptiest = loads.index(min(loads))
        bins[emptiest].append(index)
        loads[emptiest] += lengths[index]
    return bins


def _max_load(lengths: Sequence[int], bins: Sequence[Sequence[int]]) -> int:
    loads = []
    for indices in bins:
        loads.append(sum(lengths[index] for index in indices))
    return max(loads)
