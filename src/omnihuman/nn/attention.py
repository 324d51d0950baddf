"""Attention from one set of tokens to another."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Queries ``[B Q query_dim]`` attend to tokens ``[B P key_dim]`` -> ``[B Q dim]``: softmax(QK'/sqrt d)V only.

    The matrix of scores is never materialized, so thousands of queries and keys fit into memory.

    Args:
        query_dim: width of the queries.
        key_dim: width of the tokens.
        dim: width of the result.
        heads: number of heads.
        norm: apply a LayerNorm to the queries and to the tokens.

    Raises:
        ValueError: ``dim`` is not a multiple of ``heads``.

    >>> CrossAttention(4, 6, 8, heads=2)(torch.ones(1, 5, 4), torch.ones(1, 3, 6), torch.ones(1, 3).bool()).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, query_dim: int, key_dim: int, dim: int, heads: int, norm: bool = False) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"attention: heads={heads} does not divide the width {dim}; choose a divisor.")
        self.heads = heads
        self.norm_query = nn.LayerNorm(query_dim) if norm else nn.Identity()
        self.norm_key = nn.LayerNorm(key_dim) if norm else nn.Identity()
        self.q_proj = nn.Linear(query_dim, dim, bias=False)
        self.k_proj = nn.Linear(key_dim, dim, bias=False)
        self.v_proj = nn.Linear(key_dim, dim, bias=False)

    def forward(
        self, queries: Float[Tensor, "B Q _"], tokens: Float[Tensor, "B P _"], valid: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B Q D"]:
        """Attend to the valid tokens; a sample without any has a finite result without meaning."""
        tokens = self.norm_key(tokens)
        query = self._split_heads(self.q_proj(self.norm_query(queries)))
        key, value = self._split_heads(self.k_proj(tokens)), self._split_heads(self.v_proj(tokens))
        mask = None
        if not valid.all():  # the fastest kernels accept no mask
            # a sample without valid keys attends to all: a softmax over no key, and its gradient, is nan
            mask = (valid | ~valid.any(dim=1, keepdim=True))[:, None, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return rearrange(attended, "B G L D -> B L (G D)")

    def _split_heads(self, x: Float[Tensor, "B L _"]) -> Float[Tensor, "B G L _"]:
        return rearrange(x, "B L (G D) -> B G L D", G=self.heads)
