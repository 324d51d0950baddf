"""Several streams as one: concatenated or summed."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from omnihuman.types import Features, Layout


def require_equal_time_steps(layouts: Sequence[Layout], names: Sequence[str], part: str) -> int:
    """Return the number of time steps that all streams have.

    Raises:
        ValueError: the streams differ.
    """
    time_steps = {name: layout.time_steps for name, layout in zip(names, layouts, strict=True)}
    if len(set(time_steps.values())) > 1:
        raise ValueError(
            f"{part} joins frame by frame: expected equal time steps, got {time_steps}; choose clip_concat, or "
            "projectors that keep the frames."
        )
    return layouts[0].time_steps


def require_equal_layouts(layouts: Sequence[Layout], names: Sequence[str], part: str) -> Layout:
    """Return the layout that all streams have, without levels.

    Raises:
        ValueError: the streams differ.
    """
    plain = [layout._replace(levels=()) for layout in layouts]
    if len(set(plain)) > 1:
        raise ValueError(
            f"{part} adds streams of one shape, got {dict(zip(names, plain, strict=True))}; choose projectors with "
            "equal numbers of tokens, such as a qformer for each."
        )
    return plain[0]


def pad_to_longest(streams: Sequence[Features]) -> list[Features]:
    """Pad all streams to the time steps of the longest; the mask is False there."""
    longest = max(stream.tokens.shape[1] for stream in streams)
    return [_pad_time(stream, longest - stream.tokens.shape[1]) for stream in streams]


def _pad_time(stream: Features, steps: int) -> Features:
    tokens = F.pad(stream.tokens, (0, 0, 0, 0, 0, steps))
    return replace(stream, tokens=tokens, mask=F.pad(stream.mask, (0, 0, 0, steps)))


def concat_tokens(streams: Sequence[Features]) -> Features:
    """Concatenate the tokens of all streams at every time step, ``[B T N_i D]`` each -> ``[B T N1+N2+... D]``."""
    streams = pad_to_longest(streams)
    tokens = torch.cat([stream.tokens for stream in streams], dim=2)
    return Features(tokens, torch.cat([stream.mask for stream in streams], dim=2))


def mean_pool(stream: Features) -> Float[Tensor, "B D"]:
    """Return the mean of the valid tokens of each sample; zeros for a sample without any."""
    tokens, mask = stream.flat()
    return tokens.masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def redistribute_weights(weights: Float[Tensor, "*B K"], valid: Bool[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """Move the weight of invalid streams to the valid ones, in proportion; zeros without a valid stream.

    >>> redistribute_weights(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[True, True, False]])).round(decimals=3)
    tensor([[0.6670, 0.3330, 0.0000]])
    """
    remaining = weights * valid
    return remaining * weights.sum(dim=-1, keepdim=True) / remaining.sum(dim=-1, keepdim=True).clamp(min=1e-20)


def weighted_sum(
    streams: Sequence[Features], weights: Float[Tensor, "*BTN K"]
) -> tuple[Features, Float[Tensor, "B K"]]:
    """Sum streams of one shape ``[B T N D]``, weighted by ``[B or 1, T or 1, N or 1, K]``.

    A token that is missing in some streams is the sum of the other streams, at the same total weight.

    Returns:
        The sum, and the effective weights: their mean over the valid tokens of each sample.
    """
    streams = pad_to_longest(streams)
    masks = torch.stack([stream.mask for stream in streams], dim=-1)
    valid = masks.any(dim=-1)
    shares = redistribute_weights(weights.expand(masks.shape), masks)
    tokens = torch.zeros_like(streams[0].tokens)
    for stream, share in zip(streams, shares.unbind(dim=-1), strict=True):
        tokens = tokens + stream.tokens * share[..., None].to(stream.tokens.dtype)
    merged = Features(tokens, valid, streams[0].grid)
    return merged, mean_pool(Features(shares.detach(), valid))
