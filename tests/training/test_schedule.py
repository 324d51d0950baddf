"""The cosine schedule, against values by hand."""

import pytest
import torch

from omnihuman.training.schedule import cosine


def learning_rates(steps: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = cosine(optimizer, total_steps=steps, warmup=warmup)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def test_rate_rises_then_falls_to_zero() -> None:
    rates = learning_rates(100, 0.1)
    assert rates[0] == pytest.approx(2 / 11) and rates[10] == pytest.approx(2.0)
    assert max(rates) == rates[10] and rates[55] == pytest.approx(1.0) and rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_without_warmup_the_first_rate_is_the_peak() -> None:
    assert learning_rates(4, 0.0)[0] == 2.0
