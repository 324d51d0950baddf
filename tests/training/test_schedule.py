"""The cosine, against its values by hand."""

import pytest
import torch

from omnihuman.training.schedule import cosine


def rates(steps: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = cosine(optimizer, total_steps=steps, warmup=warmup)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_rises_then_falls_to_zero() -> None:
    found = rates(100, 0.1)
    assert found[0] == pytest.approx(2 / 11) and found[10] == pytest.approx(2.0)
    assert max(found) == found[10] and found[55] == pytest.approx(1.0) and found[-1] < 0.01
    assert found[10:] == sorted(found[10:], reverse=True)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert rates(4, 0.0)[0] == 2.0
