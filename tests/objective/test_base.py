"""The optimizer of an objective."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from omnihuman.build import compose_config
from omnihuman.model.trainable import Group
from omnihuman.objective.base import Objective, _choose_fused
from omnihuman.pl import pl


def build_optimizer(**options: Any) -> tuple[nn.Module, Any]:
    """Return a model and the optimizer that an objective configures for it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    objective: Any = SimpleNamespace(
        model=model,
        groups=[Group(pattern="*", lr=0.1, weight_decay=None, names=("weight", "bias"))],
        build_optimizer=partial(torch.optim.AdamW, **options),
        build_scheduler=lambda optimizer, total_steps: None,
        total_steps=1,
    )
    return model, Objective.configure_optimizers(objective)["optimizer"]


@pytest.mark.parametrize(
    ("options", "is_cuda", "chosen"),
    [
        ({"fused": None}, True, {"fused": True}),
        ({"fused": None}, False, {}),
        ({"fused": False}, True, {}),
        ({}, True, {}),
    ],
)
def test_optimizer_is_fused_on_cuda(options: dict[str, Any], is_cuda: bool, chosen: dict[str, bool]) -> None:
    groups = [{"params": [SimpleNamespace(is_cuda=True), SimpleNamespace(is_cuda=is_cuda)]}]
    assert _choose_fused(partial(torch.optim.AdamW, **options), groups) == chosen


def test_config_leaves_the_kernel_open_and_cpus_have_none() -> None:
    config = compose_config(["+experiment=humanomni_stage1_face"])
    assert config.optimizer.fused is None
    assert not build_optimizer(fused=None)[1].defaults["fused"]


def test_gradients_of_a_fused_optimizer_are_clipped_and_the_step_is_the_same() -> None:
    weights = []
    for fused in (None, True):
        model, optimizer = build_optimizer(fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.ones(2, 4)).square().sum() * 100).backward()
            pl.plugins.MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
            norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
            assert float(norm) == pytest.approx(1, abs=1e-4)
            optimizer.step()
        weights.append(model.weight)
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=0)
