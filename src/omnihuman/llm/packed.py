"""Attention over a packed row: block-diagonal and causal, one block per sample."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "omnihuman_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    bounds: Sequence[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Queries ``[1 heads L D]``, keys and values ``[1 kv_heads L D]`` -> ``[1 L heads D]``, samples kept apart.

    On CUDA in half precision the whole row is one variable-length kernel, elsewhere one SDPA call per sample:
    both do no work between samples, which a dense block mask would.

    Raises:
        ValueError: the bounds are missing (the row would attend across samples), a mask was made, or a sample is
            longer than the sliding window of the language model.
    """
    if bounds is None or attention_mask is not None:
        raise ValueError(
            "packed attention needs the bounds of the samples and no attention_mask: call CausalLM.forward, or use "
            "CausalLM.generate, which switches to ordinary attention."
        )
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    if sliding_window is not None and max(lengths) > sliding_window:
        raise ValueError(f"a sample of {max(lengths)} tokens exceeds the language model's window of {sliding_window}.")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _varlen(query, key, value, bounds, max(lengths), scaling), None
    pieces = [
        F.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for start, end in itertools.pairwise(bounds)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, bounds: Sequence[int], longest: int, scaling: float | None
) -> Tensor:
    """One kernel for the whole row."""
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    # torch 2.11's kernel has no grouped-query option
    key, value = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (key, value))
    cumulative = torch.tensor(bounds, dtype=torch.int32, device=query.device)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    attended = varlen_attn(q, k, v, cumulative, cumulative, longest, longest, scale=scaling, window_size=(-1, 0))
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


def register() -> None:
    """Make the attention known to transformers under ``NAME``; a second call changes nothing."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
