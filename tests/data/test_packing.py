"""Micro-batches for any lengths, batch size, seed, epoch and number of ranks."""

import random
from collections import Counter
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.data.packing import Budgets, EpochPlan, measure_packing, shuffle_indices, sort_windows

MAX_TOKENS = 120
LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=40)
COMMON = {"lengths": LENGTHS, "batch_size": st.integers(1, 16), "seed": st.integers(0, 5), "epoch": st.integers(0, 5)}


def plan_ranks(lengths, order, batch_size, world):
    """Return the steps of every rank."""
    options = {"batch_size": batch_size, "world": world, "max_tokens": MAX_TOKENS}
    targets = [length // 2 for length in lengths]
    return [EpochPlan(lengths, targets, order, rank=rank, **options) for rank in range(world)]


def list_indices(micro_batches):
    indices = []
    for micro_batch in micro_batches:
        indices += micro_batch.indices
    return indices


def count_tokens(lengths, micro_batch):
    return sum(lengths[index] for index in micro_batch.indices)


@settings(max_examples=60, deadline=None)
@given(**COMMON)
def test_steps_have_the_same_samples_for_any_number_of_ranks(lengths, batch_size, seed, epoch):
    order = shuffle_indices(len(lengths), seed, epoch)
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for world in (1, 2, 4):
        ranks = plan_ranks(lengths, order, batch_size, world)
        assert {len(rank) for rank in ranks} == {len(steps)}
        for number, step in enumerate(steps):
            counts = {len(rank[number]) for rank in ranks}
            assert len(counts) == 1, "all ranks have the same number of micro-batches"
            micro_batches = []
            for rank in ranks:
                micro_batches += rank[number]
            assert max(count_tokens(lengths, micro_batch) for micro_batch in micro_batches) <= MAX_TOKENS
            assert Counter(list_indices(micro_batches)) == Counter(step), "every sample once"
            step_targets = sum(lengths[index] // 2 for index in step)
            assert {micro_batch.step_targets for micro_batch in micro_batches} == {step_targets}


def test_the_number_of_micro_batches_is_that_of_the_step():
    lengths = [50, 50, 50, 50, 20, 20, 20, 20, 90, 90, 90, 30]
    ranks = plan_ranks(lengths, range(12), 4, 2)
    assert [list(map(len, rank)) for rank in ranks] == [[1, 1, 2]] * 2
    assert [count_tokens(lengths, micro_batch) for micro_batch in ranks[0][2] + ranks[1][2]] == [90, 90, 90, 30]


def test_ranks_without_samples_have_empty_micro_batches():
    plans = [EpochPlan([5], [2], [0], rank=rank, batch_size=8, max_tokens=9, world=4) for rank in range(4)]
    assert [plan[0][0].indices for plan in plans] == [(0,), (), (), ()]
    assert {plan[0][0].step_targets for plan in plans} == {2}


def test_the_order_depends_on_seed_and_epoch_only():
    assert shuffle_indices(50, 1, 0).tolist() == shuffle_indices(50, 1, 0).tolist()
    orders = set()
    for seed in (1, 2):
        for epoch in (0, 1, 2):
            orders.add(tuple(shuffle_indices(50, seed, epoch)))
    assert len(orders) == 6


def test_the_load_is_balanced():
    lengths = [90, 10, 50, 50, 30, 70, 60, 40]
    for rank in (0, 1):
        (step,) = EpochPlan(lengths, lengths, range(8), rank=rank, batch_size=8, max_tokens=110, world=2)
        assert [count_tokens(lengths, micro_batch) for micro_batch in step] == [100, 100]


def test_the_order_is_that_of_python():
    """The figures of the guide were measured with it."""
    for count in (1, 7, 1000):
        order = list(range(count))
        random.Random("42/3").shuffle(order)
        assert shuffle_indices(count, 42, 3).tolist() == order


@settings(max_examples=30, deadline=None)
@given(**COMMON, window=st.integers(2, 4))
def test_windows_keep_the_samples_and_level_the_steps(lengths, batch_size, seed, epoch, window):
    order = shuffle_indices(len(lengths), seed, epoch)
    levelled = sort_windows(order, lengths, batch_size, window, seed, epoch)
    size = batch_size * window
    for start in range(0, len(order), size):
        members = levelled[start : start + size]
        assert sorted(members) == sorted(order[start : start + size])
        steps = [members[first : first + batch_size] for first in range(0, len(members), batch_size)]
        steps.sort(key=lambda step: -lengths[step[0]])
        for step, following in pairwise(steps):
            assert min(lengths[index] for index in step) >= max(lengths[index] for index in following)
    assert levelled.tolist() == sort_windows(order, lengths, batch_size, window, seed, epoch).tolist()


def test_windows_balance_many_ranks():
    lengths = [40, 20, 60, 100] * 64
    shares = []
    for window in (1, 8):
        order = shuffle_indices(len(lengths), 1, 0)
        if window > 1:
            order = sort_windows(order, lengths, 16, window, 1, 0)
        plan = EpochPlan(lengths, lengths, order, batch_size=16, max_tokens=200, world=8)
        packing = measure_packing(plan)
        assert packing.world == 8 and packing.fill <= 1
        shares.append(packing.balance)
    assert shares[0] < 0.92 < 0.95 < shares[1]


def test_a_sample_longer_than_the_limit_raises():
    message = r"\b200 tokens.*packed sequence .*\b100\b.*recipe\.max_tokens.*data\.max_length"
    with pytest.raises(ValueError, match=message):
        EpochPlan([5, 200], [1, 1], [0, 1], batch_size=2, max_tokens=100, world=1, rank=0)


def test_budgets_limit_micro_batches_beside_their_tokens() -> None:
    lengths = [10, 10, 10, 10, 3, 3, 3, 3]
    amounts = {index: (8.0, 0.0) if index < 4 else (0.0, 5.0) for index in range(8)}
    options = {"batch_size": 8, "max_tokens": 100}
    plain = EpochPlan(lengths, lengths, range(8), **options)
    assert len(plain[0]) == 1
    for limits, num_micro_batches in (((16.0, 99.0), 2), ((8.0, 99.0), 4), ((99.0, 5.0), 4), ((99.0, 99.0), 1)):
        plan = EpochPlan(lengths, lengths, range(8), budgets=Budgets(limits, amounts.__getitem__), **options)
        (step,) = plan
        assert len(step) == num_micro_batches
        assert sorted(chain.from_iterable(micro_batch.indices for micro_batch in step)) == list(range(8))
        for micro_batch in step:
            for part, limit in enumerate(limits):
                assert sum(amounts[index][part] for index in micro_batch.indices) <= limit
    same = EpochPlan(lengths, lengths, range(8), budgets=Budgets((99.0,), lambda index: (1.0,)), **options)
    assert same[0] == plain[0]


def test_a_sample_beyond_a_budget_is_alone() -> None:
    budgets = Budgets((4.0,), lambda index: (9.0 if index == 1 else 1.0,))
    (step,) = EpochPlan([5, 5, 5], [1, 1, 1], [0, 1, 2], batch_size=3, max_tokens=100, budgets=budgets)
    assert sorted(micro_batch.indices for micro_batch in step) == [(0, 2), (1,)]
