"""Attention over a packed sequence: causal within each sample, none between samples."""

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
    """Attend within each sample: queries ``[1 heads L D]``, keys and values ``[1 kv_heads L D]`` -> ``[1 L heads D]``.

    On CUDA in half precision this is one variable-length kernel, elsewhere one SDPA call per sample: neither computes
    scores between samples, which a dense block mask would.

    Raises:
        ValueError: the bounds are missing (tokens would attend across samples), an attention mask is passed, or a
            sample is longer than the sliding window of the language model.
    """
    if bounds is None or attention_mask is not None:
        raise ValueError(
            "packed attention expects the bounds of the samples and no attention_mask; call CausalLM.forward, or "
            "CausalLM.generate, which switches to padded attention."
        )
    longest = max(end - start for start, end in itertools.pairwise(bounds))
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(f"a sample of {longest} tokens exceeds the language model's window of {sliding_window}.")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _varlen(query, key, value, bounds, longest, scaling), None
    outputs = []
    for start, end in itertools.pairwise(bounds):
        attended = F.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        outputs.append(attended)
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, bounds: Sequence[int], longest: int, scaling: float | None
) -> Tensor:
    """Attend within all samples by a single kernel."""
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # torch 2.11's kernel has no option for grouped queries
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    cumulative = torch.tensor(bounds, dtype=torch.int32, device=query.device)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    attended = varlen_attn(q, k, v, cumulative, cumulative, longest, longest, scale=scaling, window_size=(-1, 0))
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


def register() -> None:
    """Register the attention and its absent mask with transformers under ``NAME``; repeated calls change nothing."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
