"""Attention of one set of tokens to another."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Queries ``[B Q query_dim]`` read tokens ``[B P key_dim]`` -> ``[B Q dim]``: softmax(QK'/sqrt d)V, nothing more.

    The scores are never held whole, so that thousands of queries and keys fit.

    Args:
        query_dim: width of the queries.
        key_dim: width of what they read.
        dim: width of the result.
        heads: parts of ``dim`` that attend for themselves.
        norm: a LayerNorm on the queries and on what they read.

    Raises:
        ValueError: the heads do not divide the width.

    >>> CrossAttention(4, 6, 8, heads=2)(torch.ones(1, 5, 4), torch.ones(1, 3, 6), torch.ones(1, 3).bool()).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, query_dim: int, key_dim: int, dim: int, heads: int, norm: bool = False) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide the width {dim} of the attention: choose one that does.")
        self.heads = heads
        self.norm_query = nn.LayerNorm(query_dim) if norm else nn.Identity()
        self.norm_key = nn.LayerNorm(key_dim) if norm else nn.Identity()
        self.q_proj = nn.Linear(query_dim, dim, bias=False)
        self.k_proj = nn.Linear(key_dim, dim, bias=False)
        self.v_proj = nn.Linear(key_dim, dim, bias=False)

    def forward(
        self, queries: Float[Tensor, "B Q _"], tokens: Float[Tensor, "B P _"], real: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B Q D"]:
        """``real`` says which of the tokens may be read; where none may, what comes out means nothing but is finite."""
        tokens = self.norm_key(tokens)
        q, k, v = (
            rearrange(x, "B L (G D) -> B G L D", G=self.heads)
            for x in (self.q_proj(self.norm_query(queries)), self.k_proj(tokens), self.v_proj(tokens))
        )
        # the fastest kernels take no mask; a row without any key has no softmax, nor a gradient
        mask = None if real.all() else (real | ~real.any(dim=1, keepdim=True))[:, None, None]
        return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), "B G L D -> B L (G D)")
