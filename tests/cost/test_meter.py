"""Costs of calls, against counts by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnihuman.cost.meter import CallCost, MetaCounter, measure_call


def measure(part: nn.Module, *inputs: Tensor, call: Callable[..., Any] | None = None) -> CallCost:
    meter = MetaCounter()
    with meter:
        return measure_call(meter, part, lambda: (call or part)(*inputs), inputs)


def build_linear(is_trainable: bool) -> nn.Linear:
    return nn.Linear(8, 32, device="meta").requires_grad_(is_trainable)


@pytest.mark.parametrize(
    ("is_trainable", "has_input_gradient", "passes"),
    [(False, False, 1), (False, True, 2), (True, False, 3), (True, True, 3)],
)
def test_cost_of_a_linear_layer_depends_on_its_gradients(
    is_trainable: bool, has_input_gradient: bool, passes: int
) -> None:
    cost = measure(build_linear(is_trainable), torch.empty(5, 8, device="meta", requires_grad=has_input_gradient))
    assert cost.forward == 2 * 5 * 8 * 32
    assert cost.training(trained_share=float(is_trainable)) == passes * cost.forward
    # the gradient of the weights needs the input; the weights are parameters, which do not count
    assert cost.saved == (5 * 8 * 4 if is_trainable else 0)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_counts_its_products_and_saves_no_scores(is_causal: bool) -> None:
    def attend(*inputs: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*inputs, is_causal=is_causal)

    heads = [torch.empty(1, 2, 10, 4, device="meta", requires_grad=True) for _ in range(3)]
    cost = measure(nn.Identity(), *heads, call=attend)
    assert cost.forward == cost.attention == 2 * (2 * 10 * 10 * 4) * 2 // (1 + is_causal)
    assert cost.training(trained_share=0.0) == 3 * cost.forward
    assert cost.saved == (4 * 80 + 20) * 4  # query, key, value, output, and a sum for each query


def test_recomputed_block_is_counted() -> None:
    part = nn.Sequential(build_linear(True), nn.GELU(), nn.Linear(32, 8, device="meta"))
    inputs = torch.empty(5, 8, device="meta", requires_grad=True)
    plain = measure(part, inputs)
    checkpointed = measure(part, inputs, call=lambda x: checkpoint(part, x, use_reentrant=False))
    assert plain.recomputed == plain.block == 0
    assert checkpointed.forward == plain.forward == checkpointed.recomputed
    assert checkpointed.training(1.0) == 4 * checkpointed.forward
    assert checkpointed.saved == 5 * 8 * 4  # the input of the block
    assert checkpointed.block == plain.saved == 5 * (8 + 32 + 32) * 4


def test_masks_keep_their_values_beside_meta_tensors() -> None:
    tokens, mask = torch.empty(2, 3, 4, device="meta"), torch.tensor([[True, True, False], [True, False, False]])
    with MetaCounter():
        moved = mask.to(tokens.device)
        assert moved.any() and not moved.all()
        assert tokens[mask].shape == (3, 4) and tokens[mask].is_meta
        assert tokens.masked_fill(~mask[..., None], 0).is_meta
        assert (mask & (tokens[..., 0] > 0)).is_meta
