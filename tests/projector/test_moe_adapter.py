import pytest
import torch

from omnihuman.build import build, compose_part
from omnihuman.projector.moe_adapter import MoEAdapter
from omnihuman.types import Features


def stream(seed: int = 0) -> Features:
    tokens = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(seed))
    return Features.of(tokens, torch.tensor([[True] * 3, [True, False, False]]))


@pytest.mark.parametrize("gate_on", ["token", "stream"])
def test_it_is_the_weighed_sum_of_its_experts(gate_on: str) -> None:
    adapter, given = MoEAdapter(8, 16, experts=3, gate_on=gate_on), stream()
    made = adapter(given).tokens
    seen = given.tokens
    if gate_on == "stream":
        means = torch.stack([given.tokens[0].mean((0, 1)), given.tokens[1, 0].mean(0)])
        seen = means[:, None, None].expand_as(given.tokens)
    weights = torch.nn.functional.linear(seen, adapter.gate.layers[0].weight, adapter.gate.layers[0].bias).softmax(-1)
    expected = sum(weights[..., k, None] * expert(given.tokens) for k, expert in enumerate(adapter.experts))
    torch.testing.assert_close(made, expected)
    assert adapter.weights is not None and adapter.weights.shape == (2, 3)
    torch.testing.assert_close(adapter.weights[1], weights[1, 0].mean(0))


def test_experts_share_the_work() -> None:
    adapter = MoEAdapter(8, 16)
    adapter(stream()).tokens.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.parameters())
    with pytest.raises(ValueError, match="experts=0"):
        MoEAdapter(8, 16, experts=0)


def test_its_weights_are_seen_and_hold_no_graph() -> None:
    adapter, given = MoEAdapter(8, 16, experts=3), stream()
    adapter(given)
    weights = adapter.weights
    assert weights is not None and not weights.requires_grad
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    adapter(Features(given.tokens, torch.zeros_like(given.mask)))
    assert adapter.weights is not None and not adapter.weights.any()


def test_real_size_builds_without_memory() -> None:
    with torch.device("meta"):
        adapter = build(compose_part("projector", "moe_adapter"))(in_dim=256, out_dim=4096)
    assert len(adapter.experts) == 4 and all(parameter.is_meta for parameter in adapter.parameters())
