"""Soft gate: weights of valid choices sum to one."""

import torch

from omnihuman.nn.soft_gate import SoftGate


def test_invalid_choices_have_weight_zero() -> None:
    torch.manual_seed(0)
    gate, features = SoftGate(4, 3, hidden=8), torch.randn(5, 4)
    valid = torch.tensor([[True] * 3, [True, True, False], [False, False, True], [False] * 3, [True, False, True]])
    weights = gate(features, valid)
    free = gate(features).detach()
    torch.testing.assert_close(weights[0], free[0])
    torch.testing.assert_close(weights[1], torch.tensor([*(free[1, :2] / free[1, :2].sum()), 0.0]))
    assert weights[2].tolist() == [0, 0, 1] and weights[3].tolist() == [0, 0, 0]
    weights.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gate.parameters())


def test_hidden_layer_is_optional() -> None:
    features = torch.randn(2, 3, 4)
    assert [type(layer).__name__ for layer in SoftGate(4, 3, hidden=8).layers] == ["Linear", "GELU", "Linear"]
    gate = SoftGate(4, 5)
    assert [type(layer).__name__ for layer in gate.layers] == ["Linear"]
    torch.testing.assert_close(gate(features), gate.layers(features).softmax(dim=-1))
