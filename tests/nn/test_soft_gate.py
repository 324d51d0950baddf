import torch

from omnihuman.nn.soft_gate import SoftGate


def test_what_is_not_real_gets_nothing() -> None:
    torch.manual_seed(0)
    gate, seen = SoftGate(4, 3, hidden=8), torch.randn(5, 4)
    real = torch.tensor([[True] * 3, [True, True, False], [False, False, True], [False] * 3, [True, False, True]])
    weights = gate(seen, real)
    free = gate(seen).detach()
    torch.testing.assert_close(weights[0], free[0])
    torch.testing.assert_close(weights[1], torch.tensor([*(free[1, :2] / free[1, :2].sum()), 0.0]))
    assert weights[2].tolist() == [0, 0, 1] and weights[3].tolist() == [0, 0, 0]
    weights.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gate.parameters())


def test_one_linear_or_a_hidden_layer() -> None:
    seen = torch.randn(2, 3, 4)
    assert [type(layer).__name__ for layer in SoftGate(4, 3, hidden=8).layers] == ["Linear", "GELU", "Linear"]
    gate = SoftGate(4, 5)
    assert [type(layer).__name__ for layer in gate.layers] == ["Linear"]
    torch.testing.assert_close(gate(seen), gate.layers(seen).softmax(dim=-1))
