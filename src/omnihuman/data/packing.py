"""Assign samples to the micro-batches of each step on each rank: a pure function of seed and epoch."""

import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int32]
"""Numbers of samples."""


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


def shuffle_indices(count: int, seed: int, epoch: int) -> Indices:
    """Return ``range(count)`` in the order of an epoch.

    >>> shuffle_indices(5, 42, 0).tolist()
    [4, 1, 0, 3, 2]
    """
    order = array("i", range(count))  # 4 bytes a sample, where a list has 36
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return np.array(order, np.int32)


def sort_windows(order: Indices, lengths: ArrayLike, batch_size: int, window: int, seed: int, epoch: int) -> Indices:
    """Return the order of an epoch with samples of like length in a step, so that all ranks work as long in it.

    The samples of ``window`` steps are sorted by length and divided into steps again, which are shuffled. Samples stay
    within their window, and a step that is not full stays the last one.

    >>> sort_windows(np.arange(6), [1, 9, 2, 8, 3, 7], batch_size=2, window=3, seed=2, epoch=0).tolist()
    [5, 4, 2, 0, 1, 3]
    """
    lengths = np.asarray(lengths)
    generator = random.Random(f"{seed}/{epoch}/windows")
    parts = [np.empty(0, np.int32)]
    for start in range(0, len(order), batch_size * window):
        members = order[start : start + batch_size * window]
        members = members[np.argsort(-lengths[members], kind="stable")]
        num_full = len(members) // batch_size
        numbers = list(range(num_full))
        generator.shuffle(numbers)
        parts += [members[number * batch_size : (number + 1) * batch_size] for number in numbers]
        parts.append(members[num_full * batch_size :])
    return np.concatenate(parts)


def check_group(group: object) -> str | None:
    """Return the option ``data.group``.

    Raises:
        ValueError: it is invalid.
    """
    if group not in (None, "clip"):
        raise ValueError(f"data.group={group}: choose clip, or null for none.")
    return None if group is None else str(group)


def arrange_epoch(
    order: Indices, lengths: ArrayLike, groups: ArrayLike | None, batch_size: int, window: int, seed: int, epoch: int
) -> Indices:
    """Return the order of an epoch with groups together, and windows sorted.

    Args:
        order: shuffled.
        lengths: tokens of each sample.
        groups: number of the group of each sample, 0 for none; ``None``: samples stay where they are.
        batch_size: samples of a step.
        window: steps that are sorted together, see ``sort_windows``; 1: none.
        seed: of the windows.
        epoch: its number.
    """
    if groups is not None:
        order = gather_groups(order, groups)
    if window == 1:
        return order
    if groups is not None:
        lengths = raise_to_longest(lengths, groups)
    return sort_windows(order, lengths, batch_size, window, seed, epoch)


def gather_groups(order: Indices, groups: ArrayLike) -> Indices:
    """Return the order of an epoch with the samples of a group one after the other, where the first of them was.

    Args:
        order: shuffled.
        groups: number of the group of each sample, 0 for a sample without one.

    >>> gather_groups(np.array([3, 0, 2, 1, 4]), [7, 7, 0, 8, 0]).tolist()
    [3, 0, 1, 2, 4]
    """
    numbers = np.asarray(groups)[order]
    _, firsts, places = np.unique(numbers, return_index=True, return_inverse=True)
    positions = np.where(numbers == 0, np.arange(len(order)), firsts[places])
    return order[np.argsort(positions, kind="stable")]


def raise_to_longest(lengths: ArrayLike, groups: ArrayLike) -> NDArray[np.int32]:
    """Return for each sample the length of the longest one of its group, so that sorting leaves groups together.

    >>> raise_to_longest([3, 5, 2, 1], [7, 7, 0, 0]).tolist()
    [5, 5, 2, 1]
    """
    lengths, groups = np.asarray(lengths), np.asarray(groups)
    _, places = np.unique(groups, return_inverse=True)
    longest = np.zeros(places.max(initial=0) + 1, np.int32)
    np.maximum.at(longest, places, lengths)
    return np.where(groups == 0, lengths, longest[places])


def form_units(
    indices: Sequence[int], loads: Mapping[int, float], groups: Mapping[int, int], limit: float
) -> list[list[int]]:
    """Return the samples of a step in lists that stay together: those of a group, up to a load.

    >>> form_units([4, 1, 2, 3], {1: 2, 2: 2, 3: 2, 4: 9}, {1: 7, 2: 7, 3: 7, 4: 0}, limit=4)
    [[4], [1, 2], [3]]
    """
    units: list[list[int]] = []
    newest: dict[int, list[int]] = {}
    for index in indices:
        unit = newest.get(groups[index])
        if unit is not None and sum(loads[member] for member in unit) + loads[index] <= limit:
            unit.append(index)
            continue
        units.append([index])
        if groups[index]:
            newest[groups[index]] = units[-1]
    return units


def check_lengths(lengths: ArrayLike, max_tokens: int) -> None:
    """Check that every sample fits into a packed sequence.

    Raises:
        ValueError: one has more than ``max_tokens``.
    """
    longest = int(np.asarray(lengths).max(initial=0))
    if longest > max_tokens:
        raise ValueError(
            f"the longest sample has {longest} tokens, a packed sequence holds {max_tokens}: raise recipe.max_tokens, "
            "use fewer frames, or cut samples with data.max_length."
        )


@dataclass(frozen=True)
class Budgets:
    """Limits of a micro-batch beside its tokens.

    Args:
        limits: positive numbers.
        measure: number of a sample -> what it takes of each.
    """

    limits: tuple[float, ...]
    measure: Callable[[int], tuple[float, ...]]

    def weigh(self, indices: Sequence[int], lengths: Mapping[int, int], max_tokens: int) -> dict[int, float]:
        """Return the load of each sample in tokens: those of the limit that it fills most."""
        loads = dict[int, float]()
        for index in indices:
            shares = [amount / limit for amount, limit in zip(self.measure(index), self.limits, strict=True)]
            loads[index] = max(lengths[index], max_tokens * max(shares))
        return loads

    def fit(self, members: Sequence[int]) -> bool:
        """Return true if samples are below all limits together, or a sample is alone."""
        if len(members) < 2:
            return True
        totals = np.sum([self.measure(index) for index in members], axis=0)
        return bool((totals <= self.limits).all())


class EpochPlan(Sequence[Step]):
    """The steps of one rank in one epoch; each is packed when it is read.

    A step has the same samples for any ``world``. All ranks have the same number of micro-batches in it, the least with
    which none exceeds ``max_tokens`` or a budget. A sample that exceeds a budget by itself is alone in its micro-batch.

    Args:
        lengths: tokens of each sample.
        targets: supervised tokens of each sample.
        order: of the samples in the epoch.
        batch_size: samples of a step, over all ranks.
        max_tokens: of a micro-batch.
        world: number of ranks.
        rank: whose steps.
        epoch: its number.
        budgets: of a micro-batch, by the number of a sample -> what it takes of each.
        groups: number of the group of each sample, 0 for none: those of a group and step are packed together, as far as
            they fill half of a micro-batch.

    Raises:
        ValueError: a single sample exceeds ``max_tokens``.

    >>> options = dict(batch_size=4, max_tokens=7, world=2)
    >>> plans = [EpochPlan([5, 4, 3, 2], [1, 1, 1, 1], [0, 1, 2, 3], rank=rank, **options) for rank in (0, 1)]
    >>> [[micro_batch.indices for micro_batch in plan[0]] for plan in plans]
    [[(0, 3)], [(1, 2)]]
    """

    def __init__(
        self,
        lengths: ArrayLike,
        targets: ArrayLike,
        order: ArrayLike,
        *,
        batch_size: int,
        max_tokens: int,
        world: int = 1,
        rank: int = 0,
        epoch: int = 0,
        budgets: Budgets | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        self.groups = None if groups is None else np.asarray(groups)
        self.lengths, self.targets, self.order = np.asarray(lengths), np.asarray(targets), np.asarray(order)
        self.batch_size, self.max_tokens, self.world, self.rank = batch_size, max_tokens, world, rank
        self.epoch, self.budgets = epoch, budgets
        check_lengths(self.lengths, max_tokens)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    @overload
    def __getitem__(self, position: int) -> Step: ...

    @overload
    def __getitem__(self, position: slice) -> list[Step]: ...

    def __getitem__(self, position: int | slice) -> Step | list[Step]:
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        indices = self._list_indices(position)
        step_targets = int(self.targets[indices].sum())
        chosen = self.pack(position)[self.rank :: self.world]
        return tuple(MicroBatch(tuple(members), step_targets, self.epoch, len(indices)) for members in chosen)

    def pack(self, position: int) -> list[list[int]]:
        """Return the samples of all micro-batches of a step, those of rank r at ``r``, ``r + world`` ..."""
        indices = self._list_indices(position).tolist()
        lengths = dict(zip(indices, self.lengths[indices].tolist(), strict=True))
        count = max(1, -(-sum(lengths[index] for index in indices) // (self.world * self.max_tokens)))
        loads: Mapping[int, float] = lengths
        if self.budgets is not None:
            loads = self.budgets.weigh(indices, lengths, self.max_tokens)
        units = [[index] for index in indices]
        if self.groups is not None:
            numbers = dict(zip(indices, self.groups[indices].tolist(), strict=True))
            units = form_units(indices, loads, numbers, self.max_tokens / 2)
        bins = _spread(loads, units, self.world * count)
        while not all(self._fits(members, lengths) for members in bins):
            count += 1
            bins = _spread(loads, units, self.world * count)
        return bins

    def _fits(self, members: Sequence[int], lengths: Mapping[int, int]) -> bool:
        is_below = sum(lengths[index] for index in members) <= self.max_tokens
        return is_below and (self.budgets is None or self.budgets.fit(members))

    def _list_indices(self, position: int) -> Indices:
        start = range(len(self))[position] * self.batch_size
        indices: Indices = self.order[start : start + self.batch_size]
        return indices


def _spread(loads: Mapping[int, float], units: Sequence[list[int]], count: int) -> list[list[int]]:
    """Spread samples over bins, those of the largest load first into the emptiest; the samples of a unit together."""
    bins: list[list[int]] = [[] for _ in range(count)]
    totals = [(0.0, number) for number in range(count)]  # a heap
    weighed = []
    for unit in units:
        load = sum(loads[index] for index in unit)
        weighed.append((-load, unit))
    for negative_load, unit in sorted(weighed):
        total, number = totals[0]
        bins[number] += unit
        heapreplace(totals, (total - negative_load, number))
    return bins


@dataclass(frozen=True, slots=True)
class Packing:
    """Mean values of the packing of steps.

    Attributes:
        world: number of ranks.
        micro_batches: of a step on each rank, mean.
        fill: tokens of a micro-batch by the limit, mean.
        balance: tokens of a rank by those of the fullest rank, mean over the steps.
    """

    world: int
    micro_batches: float
    fill: float
    balance: float


def measure_packing(plan: EpochPlan, max_steps: int = 500) -> Packing:
    """Return how well steps are packed, the first ``max_steps`` full ones."""
    num_steps = min(max_steps, max(1, len(plan.order) // plan.batch_size), len(plan))
    counts, fills, balances = [], [], []
    for number in range(num_steps):
        bins = plan.pack(number)
        loads = np.array([plan.lengths[members].sum() for members in bins]).reshape(-1, plan.world)
        counts.append(len(loads))
        fills.append(loads.mean() / plan.max_tokens)
        balances.append((loads.mean(axis=1) / loads.max(axis=1)).mean())
    return Packing(plan.world, float(np.mean(counts)), float(np.mean(fills)), float(np.mean(balances)))
