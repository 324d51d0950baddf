"""Attention over a packed sequence: causal within each sample, none between samples."""

import inspect
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from omnihuman.mirror import Mirror

NAME = "omnihuman_packed"
NAME_WITHOUT_KERNEL = "omnihuman_packed_without_kernel"
"""Attention that never uses the kernel for variable lengths, for comparisons."""

HAS_GROUPED_QUERIES = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""True if the kernel takes fewer heads of keys than of queries; that of torch 2.11 does not."""


class Segments:
    """The samples of a packed sequence, made once for all layers.

    Args:
        bounds: start of every sample, and the end of the last one.
        device: of the sequence.

    Attributes:
        bounds: the same numbers on the host.
        cumulative: the same numbers on the device, int32, as kernels for variable lengths expect them.
        positions: both of them together.
        longest: positions of the longest sample.

    >>> segments = Segments([0, 3, 5], torch.device("cpu"))
    >>> segments.cumulative.tolist(), segments.longest
    ([0, 3, 5], 3)
    """

    def __init__(self, bounds: Sequence[int], device: torch.device) -> None:
        self.bounds = tuple(bounds)
        # not torch.tensor(..., device=device), which waits for everything that the device has still to do
        host = torch.tensor(self.bounds, dtype=torch.int32)
        self.cumulative = host.to(device, non_blocking=True)
        self.positions = Mirror.of(self.cumulative, host)
        self.longest = max(end - start for start, end in itertools.pairwise(self.bounds))


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: Segments | None = None,
    has_kernel: bool = True,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sample: queries ``[1 heads L D]``, keys and values ``[1 kv_heads L D]`` -> ``[1 L heads D]``.

    On CUDA in half precision this is one variable-length kernel, elsewhere one SDPA call per sample: neither computes
    scores between samples, which a dense block mask would. Under autocast the rotary positions make queries and keys
    float32, so the dtype of the values decides.

    Raises:
        ValueError: the segments are missing (tokens would attend across samples), an attention mask is passed, or a
            sample is longer than the sliding window of the language model.
    """
    if segments is None or attention_mask is not None:
        raise ValueError(
            "packed attention expects the segments of the samples and no attention_mask; call CausalLM.forward, or "
            "CausalLM.generate, which switches to padded attention."
        )
    longest = segments.longest
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(f"a sample of {longest} tokens exceeds the language model's window of {sliding_window}.")
    query, key = query.to(value.dtype), key.to(value.dtype)
    if dropout:  # which neither the kernel nor the compiled operation has
        attended = _attend_each(query, key, value, segments.bounds, scaling, dropout)
    elif has_kernel and _is_on_gpu(value) and value.dtype in (torch.bfloat16, torch.float16):
        return _attend_by_kernel(query, key, value, segments, scaling), None
    elif torch.compiler.is_compiling():
        attended = _attend_compiled(query, key, value, segments.cumulative, scaling)
    else:
        attended = _attend_each(query, key, value, segments.bounds, scaling)
    return attended.transpose(1, 2), None


def _is_on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, bounds: Sequence[int], scaling: float | None, dropout: float = 0.0
) -> Tensor:
    """Attend within one sample after the other; ``[1 heads L D]``."""
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
    return torch.cat(outputs, dim=2)


def _attend_by_kernel(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None) -> Tensor:
    """Attend within all samples by a single kernel; ``[1 L heads D]``."""
    options: dict[str, Any] = {}
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and HAS_GROUPED_QUERIES:
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    cumulative, longest = segments.cumulative, segments.longest
    attended = varlen_attn(
        q, k, v, cumulative, cumulative, longest, longest, scale=scaling, window_size=(-1, 0), **options
    )
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


@torch.library.custom_op("omnihuman::packed_attention", mutates_args=())
def _attend_compiled(query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, scaling: float | None) -> Tensor:
    """Attend as ``_attend_each`` does: one operation for ``torch.compile``, which would compile it for every bounds."""
    return _attend_each(query, key, value, cumulative.tolist(), scaling)


@_attend_compiled.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, scaling: float | None) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


def _save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scaling = inputs
    ctx.save_for_backward(*tensors)


def _attend_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _differentiate(*ctx.saved_tensors, grad, ctx.scaling)
    return (*gradients, None, None)


@torch.library.custom_op("omnihuman::packed_attention_backward", mutates_args=())
def _differentiate(
    query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, grad: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the inputs; the scores are computed anew.

    By hand, since an operation runs below autograd, and SDPA's own backward passes have private names.
    """
    groups = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
    for start, end in itertools.pairwise(cumulative.tolist()):
        place = slice(start, end)
        q, g = (torch.unflatten(tensor[:, :, place], 1, (-1, groups)) for tensor in (query, grad))
        k, v = (tensor[:, :, None, place] for tensor in (key, value))
        future = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).triu(1)
        weights = (q @ k.mT * scale).masked_fill(future, -torch.inf).softmax(dim=-1)
        products = g @ v.mT
        scores = scale * weights * (products - (weights * products).sum(dim=-1, keepdim=True))
        gradients[0][:, :, place] = (scores @ k).flatten(1, 2)
        gradients[1][:, :, place] = (scores.mT @ q).sum(dim=2)
        gradients[2][:, :, place] = (weights.mT @ g).sum(dim=2)
    return gradients[0], gradients[1], gradients[2]


@_differentiate.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, grad: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


_attend_compiled.register_autograd(_attend_backward, setup_context=_save_inputs)


def register() -> None:
    """Register the attention and its absent mask with transformers; repeated calls change nothing."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionInterface.register(NAME_WITHOUT_KERNEL, partial(packed_attention, has_kernel=False))
    for name in (NAME, NAME_WITHOUT_KERNEL):
        AttentionMaskInterface.register(name, lambda *args, **kwargs: None)
