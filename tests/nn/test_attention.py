"""Cross-attention equals the plain formula, without a matrix of scores in memory."""

import pytest
import torch
from torch import Tensor

from omnihuman.nn.attention import CrossAttention


def plain_attention(part: CrossAttention, queries: Tensor, tokens: Tensor, valid: Tensor, heads: int) -> Tensor:
    """Compute softmax(QK'/sqrt d)V sample by sample and head by head."""
    samples = []
    for sample_queries, sample_tokens, mask in zip(queries, tokens, valid, strict=True):
        q, k, v = part.q_proj(sample_queries), part.k_proj(sample_tokens[mask]), part.v_proj(sample_tokens[mask])
        d = q.shape[-1] // heads
        outputs = []
        for head in range(heads):
            columns = slice(head * d, (head + 1) * d)
            scores = q[:, columns] @ k[:, columns].T / d**0.5
            outputs.append(scores.softmax(dim=-1) @ v[:, columns])
        samples.append(torch.cat(outputs, dim=-1))
    return torch.stack(samples)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("has_gaps", [False, True])
def test_equals_the_formula(heads: int, has_gaps: bool) -> None:
    torch.manual_seed(0)
    part = CrossAttention(6, 10, 8, heads).double()
    queries, tokens = torch.randn(3, 5, 6).double(), torch.randn(3, 7, 10).double()
    valid = torch.ones(3, 7, dtype=torch.bool)
    if has_gaps:
        valid[:, 1:] = torch.rand(3, 6) > 0.4
    output = part(queries, tokens, valid)
    torch.testing.assert_close(output, plain_attention(part, queries, tokens, valid, heads), atol=1e-12, rtol=1e-10)
    assert not torch.allclose(output, plain_attention(part, queries, tokens, valid, 2))


def test_sample_without_valid_tokens_is_finite_with_its_gradients() -> None:
    part = CrossAttention(4, 4, 8, 2, norm=True)
    valid = torch.tensor([[True, False], [False, False]])
    output = part(torch.randn(2, 3, 4), torch.randn(2, 2, 4), valid)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in part.parameters())


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_width_raise(heads: int) -> None:
    with pytest.raises(ValueError, match=rf"heads={heads}\b.*width 8\b"):
        CrossAttention(4, 4, 8, heads)
