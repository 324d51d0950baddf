"""The MoE adapter is the weighted sum of its experts."""

import pytest
import torch
import torch.nn.functional as F

from omnihuman.build import build, compose_part
from omnihuman.projector.moe_adapter import MoEAdapter
from omnihuman.types import Features


def draw_stream() -> Features:
    tokens = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    return Features.of(tokens, torch.tensor([[True] * 3, [True, False, False]]))


@pytest.mark.parametrize("gate_on", ["token", "stream"])
def test_equals_the_weighted_sum_of_experts(gate_on: str) -> None:
    adapter, stream = MoEAdapter(8, 16, experts=3, gate_on=gate_on), draw_stream()
    projected = adapter(stream).tokens
    gate_input = stream.tokens
    if gate_on == "stream":
        means = torch.stack([stream.tokens[0].mean((0, 1)), stream.tokens[1, 0].mean(0)])
        gate_input = means[:, None, None].expand_as(stream.tokens)
    linear = adapter.gate.layers[0]
    weights = F.linear(gate_input, linear.weight, linear.bias).softmax(-1)
    expected = sum(weights[..., k, None] * expert(stream.tokens) for k, expert in enumerate(adapter.experts))
    torch.testing.assert_close(projected, expected)
    assert adapter.weights is not None and adapter.weights.shape == (2, 3)
    torch.testing.assert_close(adapter.weights[1], weights[1, 0].mean(0))


def test_gradients_reach_every_expert() -> None:
    adapter = MoEAdapter(8, 16)
    adapter(draw_stream()).tokens.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.parameters())


def test_no_experts_raise() -> None:
    with pytest.raises(ValueError, match=r"experts=0.*\b1 or more"):
        MoEAdapter(8, 16, experts=0)


def test_weights_are_reported_without_a_graph() -> None:
    adapter, stream = MoEAdapter(8, 16, experts=3), draw_stream()
    adapter(stream)
    weights = adapter.weights
    assert weights is not None and not weights.requires_grad
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    adapter(Features(stream.tokens, torch.zeros_like(stream.mask)))
    assert adapter.weights is not None and not adapter.weights.any()


def test_real_size_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        adapter = build(compose_part("projector", "moe_adapter"))(in_dim=256, out_dim=4096)
    assert len(adapter.experts) == 4 and all(parameter.is_meta for parameter in adapter.parameters())
