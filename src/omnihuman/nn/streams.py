"""Several streams side by side, or as one sum."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from omnihuman.types import Features, Layout


def one_length(layouts: Sequence[Layout], names: Sequence[str], reader: str) -> int:
    """The number of moments that all streams have.

    Raises:
        ValueError: they differ.
    """
    moments = {name: layout.moments for name, layout in zip(names, layouts, strict=True)}
    if len(set(moments.values())) > 1:
        raise ValueError(
            f"{reader} joins frame by frame, but the streams have {moments} moments: choose clip_concat, or projectors "
            "that keep the frames."
        )
    return layouts[0].moments


def one_shape(layouts: Sequence[Layout], names: Sequence[str], reader: str) -> Layout:
    """The layout that all streams have.

    Raises:
        ValueError: they differ.
    """
    plain = [layout._replace(levels=()) for layout in layouts]
    if len(set(plain)) > 1:
        raise ValueError(
            f"{reader} adds streams of one shape, got {dict(zip(names, plain, strict=True))}: choose projectors that "
            "give all of them the same tokens, such as a qformer for each."
        )
    return plain[0]


def to_longest(streams: Sequence[Features]) -> list[Features]:
    """The streams with as many moments as the longest; those added are hidden."""
    moments = max(stream.tokens.shape[1] for stream in streams)
    return [
        replace(
            stream,
            tokens=F.pad(stream.tokens, (0, 0, 0, 0, 0, moments - stream.tokens.shape[1])),
            mask=F.pad(stream.mask, (0, 0, 0, moments - stream.mask.shape[1])),
        )
        for stream in streams
    ]


def side_by_side(streams: Sequence[Features]) -> Features:
    """Of every moment the tokens of all streams, ``[B T N D]`` each -> ``[B T N1+N2+... D]``."""
    streams = to_longest(streams)
    return Features(torch.cat([s.tokens for s in streams], dim=2), torch.cat([s.mask for s in streams], dim=2))


def pooled(stream: Features) -> Float[Tensor, "B D"]:
    """Mean of the real tokens of a sample; zeros where it has none."""
    tokens, mask = stream.flat()
    return tokens.masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def shared_out(weights: Float[Tensor, "*B K"], real: Bool[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """Weights where those of what is not real go to the others, in proportion; zeros where nothing is.

    >>> shared_out(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[True, True, False]])).round(decimals=3)
    tensor([[0.6670, 0.3330, 0.0000]])
    """
    kept = weights * real
    return kept * weights.sum(dim=-1, keepdim=True) / kept.sum(dim=-1, keepdim=True).clamp(min=1e-20)


def weighted_sum(
    streams: Sequence[Features], weights: Float[Tensor, "*BTN K"]
) -> tuple[Features, Float[Tensor, "B K"]]:
    """Streams of one shape ``[B T N D]``, times ``[B or 1, T or 1, N or 1, K]``, added up.

    A token that some streams lack is the sum of the others, at the same total weight.

    Returns:
        The sum, and the weights in effect, their mean over the real tokens of each sample.
    """
    streams = to_longest(streams)
    masks = torch.stack([stream.mask for stream in streams], dim=-1)
    real = masks.any(dim=-1)
    shares = shared_out(weights.expand(masks.shape), masks)
    tokens = torch.zeros_like(streams[0].tokens)
    for stream, share in zip(streams, shares.unbind(dim=-1), strict=True):
        tokens = tokens + stream.tokens * share[..., None].to(stream.tokens.dtype)
    merged = Features(tokens, real, streams[0].grid)
    return merged, pooled(Features(shares.detach(), real))
