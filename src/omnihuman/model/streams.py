"""Streams of a batch: encoded or cached, and projected where they are valid."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from omnihuman.encoder.base import Encoder
from omnihuman.mirror import range_like
from omnihuman.projector.base import Projector
from omnihuman.types import Batch, Features


def encode(encoder: Encoder, name: str, batch: Batch) -> Features:
    """Return the features of the batch's signal, together with the cached features of the other samples."""
    cached = batch.features.get(name)
    if cached is not None and name not in batch.signals:
        return cached
    features: Features = encoder(batch.signals[name])
    if cached is None:
        return features
    return merge_samples(cached, features)


def merge_samples(first: Features, second: Features) -> Features:
    """Merge two streams, each with valid tokens of samples that the other one lacks."""
    time_steps = max(first.tokens.shape[1], second.tokens.shape[1])
    first_tokens, first_mask = _pad_time(first, time_steps)
    second_tokens, second_mask = _pad_time(second, time_steps)
    tokens = torch.where(first_mask[..., None], first_tokens, second_tokens)
    # cached features have levels only where a part reads them
    levels = tuple(merge_samples(*pair) for pair in zip(first.levels, second.levels, strict=False))
    return Features(tokens, first_mask | second_mask, first.grid, levels)


def project_valid(projector: Projector, features: Features, condition: Features | None = None) -> Features:
    """Project the samples that have the stream; of none, one blank sample, so that every rank takes part."""
    is_valid = features.mask.flatten(1).any(dim=1)
    samples = range_like(len(is_valid), is_valid)
    if not is_valid.all():
        samples = is_valid.nonzero().squeeze(-1)
    if not len(samples):
        samples = samples.new_zeros(1)
    kwargs = {}
    if condition is not None:
        kwargs["condition"] = _select_samples(condition, samples)
    projected: Features = projector(_select_samples(features, samples), **kwargs)
    if len(samples) == len(is_valid):
        return replace(projected, tilings=features.tilings)
    size = (len(is_valid), *projected.tokens.shape[1:])
    tokens = projected.tokens.new_zeros(size).index_copy(0, samples, projected.tokens)
    mask = projected.mask.new_zeros(size[:-1]).index_copy(0, samples, projected.mask)
    return replace(projected, tokens=tokens, mask=mask, tilings=features.tilings)


def _select_samples(features: Features, samples: Int[Tensor, " K"]) -> Features:
    return replace(features, tokens=features.tokens[samples], mask=features.mask[samples], levels=(), tilings=None)


def _pad_time(features: Features, time_steps: int) -> tuple[Tensor, Tensor]:
    missing = time_steps - features.tokens.shape[1]
    return F.pad(features.tokens, (0, 0, 0, 0, 0, missing)), F.pad(features.mask, (0, 0, 0, missing))
