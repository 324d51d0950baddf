from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnihuman.training.meter import OnMeta, Reading, measure


def read(part: nn.Module, *given: Tensor, call: Callable[..., Any] | None = None) -> Reading:
    meter = OnMeta()
    with meter:
        return measure(meter, part, lambda: (call or part)(*given), given)


def linear(trained: bool) -> nn.Linear:
    return nn.Linear(8, 32, device="meta").requires_grad_(trained)


@pytest.mark.parametrize(
    ("trained", "flows", "passes"), [(False, False, 1), (False, True, 2), (True, False, 3), (True, True, 3)]
)
def test_what_a_linear_layer_costs_depends_on_what_trains_and_what_gradients_pass(
    trained: bool, flows: bool, passes: int
) -> None:
    reading = read(linear(trained), torch.empty(5, 8, device="meta", requires_grad=flows))
    assert reading.forward == 2 * 5 * 8 * 32
    assert reading.training(share=float(trained)) == passes * reading.forward
    # the product needs what it reads for the gradient of its weights; its weights are there anyway
    assert reading.saved == (5 * 8 * 4 if trained else 0)


def test_attention_counts_its_products_and_never_holds_its_scores() -> None:
    heads = [torch.empty(1, 2, 10, 4, device="meta", requires_grad=True) for _ in range(3)]
    for causal in (False, True):
        reading = read(nn.Identity(), *heads, call=lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=causal))  # noqa: B023
        assert reading.forward == reading.attention == 2 * (2 * 10 * 10 * 4) * 2 // (1 + causal)
        assert reading.training(share=0.0) == 3 * reading.forward
        assert reading.saved == (4 * 80 + 20) * 4  # query, key, value, what came out, and a sum for each query


def test_what_a_checkpoint_recomputes_is_counted() -> None:
    part = nn.Sequential(linear(True), nn.GELU(), nn.Linear(32, 8, device="meta"))
    given = torch.empty(5, 8, device="meta", requires_grad=True)
    plain = read(part, given)
    saving = read(part, given, call=lambda x: checkpoint(part, x, use_reentrant=False))
    assert plain.recomputed == plain.block == 0
    assert saving.forward == plain.forward == saving.recomputed
    assert saving.training(1.0) == 4 * saving.forward
    assert saving.saved == 5 * 8 * 4  # what the checkpoint reads
    assert saving.block == plain.saved == 5 * (8 + 32 + 32) * 4


def test_masks_keep_their_values_beside_what_has_none() -> None:
    tokens, mask = torch.empty(2, 3, 4, device="meta"), torch.tensor([[True, True, False], [True, False, False]])
    with OnMeta():
        moved = mask.to(tokens.device)
        assert moved.any() and not moved.all()
        assert tokens[mask].shape == (3, 4) and tokens[mask].is_meta
        assert tokens.masked_fill(~mask[..., None], 0).is_meta
        assert (mask & (tokens[..., 0] > 0)).is_meta
