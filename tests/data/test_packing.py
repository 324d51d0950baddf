"""Micro-batches for any lengths, batch size, seed, epoch and number of ranks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.data.packing import count_micro_batches, pack_epoch, shuffle_indices

MAX_TOKENS = 120
LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=40)
COMMON = {"lengths": LENGTHS, "batch_size": st.integers(1, 16), "seed": st.integers(0, 5), "epoch": st.integers(0, 5)}


def plan_ranks(lengths, order, batch_size, world):
    """Return the number of micro-batches per step, and the micro-batches of every rank."""
    count = count_micro_batches(lengths, order, batch_size, MAX_TOKENS, world)
    options = {"batch_size": batch_size, "micro_batches": count, "world": world, "max_tokens": MAX_TOKENS}
    targets = [length // 2 for length in lengths]
    return count, [pack_epoch(lengths, targets, order, rank=rank, **options) for rank in range(world)]


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
        count, ranks = plan_ranks(lengths, order, batch_size, world)
        used = Counter()
        for rank in ranks:
            assert len(rank) == count * len(steps), "all ranks have the same number of micro-batches"
            assert max(count_tokens(lengths, micro_batch) for micro_batch in rank) <= MAX_TOKENS
            used.update(list_indices(rank))
        assert used == Counter(range(len(lengths))), "every sample once"
        for number, step in enumerate(steps):
            micro_batches = []
            for rank in ranks:
                micro_batches += rank[number * count : (number + 1) * count]
            assert Counter(list_indices(micro_batches)) == Counter(step)
            step_targets = sum(lengths[index] // 2 for index in step)
            assert {micro_batch.step_targets for micro_batch in micro_batches} == {step_targets}


@settings(max_examples=30, deadline=None)
@given(**COMMON)
def test_the_number_of_micro_batches_is_the_least(lengths, batch_size, seed, epoch):
    order = shuffle_indices(len(lengths), seed, epoch)
    count, _ = plan_ranks(lengths, order, batch_size, 2)
    if count == 1:
        return
    options = {"batch_size": batch_size, "micro_batches": count - 1, "world": 2, "max_tokens": MAX_TOKENS}
    with pytest.raises(ValueError, match=r"do not fit.*raise recipe\.max_tokens|Raise recipe\.max_tokens"):
        pack_epoch(lengths, lengths, order, rank=0, **options)


def test_ranks_without_samples_have_empty_micro_batches():
    options = {"batch_size": 8, "micro_batches": 1, "world": 4}
    plans = [pack_epoch([5], [2], [0], rank=rank, **options) for rank in range(4)]
    assert [plan[0].indices for plan in plans] == [(0,), (), (), ()]
    assert {plan[0].step_targets for plan in plans} == {2}


def test_the_order_depends_on_seed_and_epoch_only():
    assert shuffle_indices(50, 1, 0) == shuffle_indices(50, 1, 0)
    orders = set()
    for seed in (1, 2):
        for epoch in (0, 1, 2):
            orders.add(tuple(shuffle_indices(50, seed, epoch)))
    assert len(orders) == 6


def test_the_load_is_balanced():
    lengths = [90, 10, 50, 50, 30, 70, 60, 40]
    options = {"batch_size": 8, "micro_batches": 2, "world": 2}
    for rank in (0, 1):
        plan = pack_epoch(lengths, lengths, range(8), rank=rank, **options)
        assert [count_tokens(lengths, micro_batch) for micro_batch in plan] == [100, 100]


def test_a_sample_longer_than_the_limit_raises():
    message = r"\b200 tokens.*packed sequence .*\b100\b.*recipe\.max_tokens.*data\.max_length"
    with pytest.raises(ValueError, match=message):
        count_micro_batches([5, 200], [0, 1], 2, 100, 1)
