"""The plan keeps its promises for any lengths, batch size, seed, epoch and number of ranks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.data.plan import plan_epoch, rows_per_step, shuffled

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=40)
COMMON = {"lengths": LENGTHS, "batch_size": st.integers(1, 16), "seed": st.integers(0, 5), "epoch": st.integers(0, 5)}


def rows_of(lengths, order, batch_size, world, budget=120):
    rows = rows_per_step(lengths, order, batch_size, budget, world)
    options = {"batch_size": batch_size, "rows": rows, "world": world, "max_tokens": budget}
    targets = [length // 2 for length in lengths]
    return rows, [plan_epoch(lengths, targets, order, rank=rank, **options) for rank in range(world)]


@settings(max_examples=60, deadline=None)
@given(**COMMON)
def test_every_sample_once_within_the_budget_in_the_same_steps_for_every_world(lengths, batch_size, seed, epoch):
    order = shuffled(len(lengths), seed, epoch)
    steps = [Counter(order[at : at + batch_size]) for at in range(0, len(order), batch_size)]
    for world in (1, 2, 4):
        rows, ranks = rows_of(lengths, order, batch_size, world)
        assert {len(rank) for rank in ranks} == {rows * len(steps)}, "all ranks take the same number of rows"
        everything = Counter(index for rank in ranks for row in rank for index in row.samples)
        assert everything == Counter(range(len(lengths)))
        assert all(sum(lengths[i] for i in row.samples) <= 120 for rank in ranks for row in rank)
        for number, step in enumerate(steps):
            now = [row for rank in ranks for row in rank[number * rows : (number + 1) * rows]]
            assert Counter(index for row in now for index in row.samples) == step
            assert {row.step_targets for row in now} == {sum(lengths[index] // 2 for index in step)}


@settings(max_examples=30, deadline=None)
@given(**COMMON)
def test_the_number_of_rows_is_the_least(lengths, batch_size, seed, epoch):
    order = shuffled(len(lengths), seed, epoch)
    rows, _ = rows_of(lengths, order, batch_size, 2)
    if rows > 1:
        with pytest.raises(ValueError, match=r"do not fit.*raise stage\.max_tokens|Raise stage\.max_tokens"):
            plan_epoch(lengths, lengths, order, batch_size=batch_size, rows=rows - 1, world=2, rank=0, max_tokens=120)


def test_ranks_with_nothing_to_do_get_empty_rows():
    plan = [plan_epoch([5], [2], [0], batch_size=8, rows=1, world=4, rank=rank) for rank in range(4)]
    assert [rows[0].samples for rows in plan] == [(0,), (), (), ()]
    assert {rows[0].step_targets for rows in plan} == {2}


def test_the_order_is_a_function_of_seed_and_epoch():
    assert shuffled(50, 1, 0) == shuffled(50, 1, 0)
    assert len({tuple(shuffled(50, seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


def test_the_load_is_balanced():
    lengths = [90, 10, 50, 50, 30, 70, 60, 40]
    rows = [plan_epoch(lengths, lengths, range(8), batch_size=8, rows=2, world=2, rank=rank) for rank in (0, 1)]
    assert [sum(lengths[i] for i in row.samples) for rank in rows for row in rank] == [100, 100, 100, 100]


def test_a_sample_longer_than_a_row_names_the_cures():
    with pytest.raises(ValueError, match=r"200 tokens, a packed row holds 100.*stage\.max_tokens.*data\.max_length"):
        rows_per_step([5, 200], [0, 1], 2, 100, 1)
