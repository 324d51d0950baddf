"""Batches that are loaded ahead are limited by their bytes."""

from typing import Any

import pytest
import torch

from omnihuman.data.packing import MicroBatch
from omnihuman.data.prefetch import MAX_AHEAD, count_ahead, measure_batch, measure_units
from omnihuman.types import Features

from .conftest import WITH_FACES
from .test_module import list_ids


def test_the_bytes_of_a_batch_are_those_of_its_signals(build_data: Any) -> None:
    samples = build_data().train_samples
    micro_batch = MicroBatch((0, 1, 2), 3)
    measured = measure_batch(samples, micro_batch, measure_units(samples))
    signals = samples[micro_batch].signals
    size = sum(signals[name].values[signals[name].mask].nbytes for name in ("video", "audio"))
    assert size <= measured <= 1.05 * size


def test_faces_count_as_many_as_frames(build_data: Any, connect_args: Any) -> None:
    data = build_data()
    single = measure_units(data.train_samples)
    data.connect(WITH_FACES, *connect_args[1:])
    assert measure_units(data._plan_samples([])) == [*single, ("frames", 3 * 8 * 8)]


@pytest.mark.parametrize(("max_bytes", "ahead"), [(1, 1), (2 * 3 * 2000, 3), (2 * 3 * 2000 - 1, 2), (10**9, MAX_AHEAD)])
def test_workers_load_as_much_ahead_as_the_limit_allows(
    max_bytes: int, ahead: int, build_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {1: 2000.0, 2: 500.0}
    monkeypatch.setattr("omnihuman.data.prefetch.measure_batch", lambda samples, batch, units: sizes[batch.epoch])
    plan = [MicroBatch((0,), 1, epoch=number) for number in (1, 2)]
    assert count_ahead(build_data().train_samples, plan, num_workers=2, max_bytes=max_bytes) == ahead


def test_cached_features_count_instead_of_signals(build_data: Any) -> None:
    samples = build_data().train_samples
    blank = Features.of(torch.zeros(1, 1, 50, 16), torch.ones(1, 1, dtype=torch.bool))
    samples.cached = type("Index", (), {"blanks": {"video": blank}})()
    assert measure_units(samples)[0] == ("frames", 50 * 16 * 4)


def test_a_loader_keeps_its_workers_and_its_limit(build_data: Any) -> None:
    loader = build_data(num_workers=1, prefetch_mb=0.000001).train_dataloader()
    assert loader.prefetch_factor == 1
    workers, ids = set(), []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        ids.append(list_ids(loader))
        workers.add(loader._iterator._workers[0].pid)
    assert len(workers) == 1
    assert sorted(ids[0]) == sorted(ids[1]) and ids[0] != ids[1]
    alone = build_data().train_dataloader()
    alone.sampler.set_epoch(1)
    assert list_ids(alone) == ids[1]


def test_a_loader_and_its_workers_end_at_once(build_data: Any) -> None:
    loader = build_data(num_workers=1).train_dataloader()
    _ = next(iter(loader))
    worker = loader._iterator._workers[0]
    del loader
    assert worker.exitcode == 0


@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_above_zero(value: int, build_data: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.prefetch_mb must be above 0"):
        build_data(prefetch_mb=value)
