"""Cross-attention: the plain formula, without the scores in memory."""

import pytest
import torch

from omnihuman.nn.attention import CrossAttention


def by_hand(
    part: CrossAttention, queries: torch.Tensor, tokens: torch.Tensor, real: torch.Tensor, heads: int
) -> torch.Tensor:
    """softmax(QK'/sqrt d)V of one sample and one head after the other."""
    rows = []
    for one, seen, there in zip(queries, tokens, real, strict=True):
        q, k, v = part.q_proj(one), part.k_proj(seen[there]), part.v_proj(seen[there])
        d = q.shape[-1] // heads
        parts = zip(q.split(d, dim=-1), k.split(d, dim=-1), v.split(d, dim=-1), strict=True)
        rows.append(torch.cat([(a @ b.T / d**0.5).softmax(dim=-1) @ c for a, b, c in parts], dim=-1))
    return torch.stack(rows)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("holes", [False, True])
def test_is_the_formula(heads: int, holes: bool) -> None:
    torch.manual_seed(0)
    part = CrossAttention(6, 10, 8, heads).double()
    queries, tokens = torch.randn(3, 5, 6).double(), torch.randn(3, 7, 10).double()
    real = torch.rand(3, 7) > 0.4 if holes else torch.ones(3, 7, dtype=torch.bool)
    real[:, 0] = True
    made = part(queries, tokens, real)
    torch.testing.assert_close(made, by_hand(part, queries, tokens, real, heads), atol=1e-12, rtol=1e-10)
    assert not torch.allclose(made, by_hand(part, queries, tokens, real, 2))


def test_nothing_to_read_is_finite_with_its_gradients() -> None:
    part = CrossAttention(4, 4, 8, 2, norm=True)
    real = torch.tensor([[True, False], [False, False]])
    made = part(torch.randn(2, 3, 4), torch.randn(2, 2, 4), real)
    made.sum().backward()
    assert made.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in part.parameters())


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_fit_are_named(heads: int) -> None:
    with pytest.raises(ValueError, match=f"heads={heads} does not divide the width 8"):
        CrossAttention(4, 4, 8, heads)
