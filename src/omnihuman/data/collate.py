"""Pack samples into one batch."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from omnihuman.types import IGNORE_INDEX, Batch, Features, Signal, Tiling


@dataclass(frozen=True, slots=True)
class Packable:
    """One sample, ready to be packed.

    Attributes:
        signals: time steps ``[T ...]`` by encoder name; a modality that the sample lacks is absent.
        input_ids: tokens of its text, slots expanded.
        labels: supervised ids at their own positions.
        meta: for validation and reports.
        masks: valid time steps ``[T]`` by encoder name, where some may be missing.
        features: cached output of encoders, ``[1 T N D]``, in place of their signals.
        more: signals of the images after the first one, with the other signals that the model reads beside them.
        tiling: of an image in tiles.
    """

    signals: Mapping[str, Tensor]
    input_ids: Sequence[int]
    labels: Sequence[int]
    meta: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Features] = field(default_factory=dict)
    more: "tuple[Packable, ...]" = ()
    tiling: Tiling | None = None


def pack(
    samples: Sequence[Packable],
    blanks: Mapping[str, Tensor],
    step_targets: int,
    skipped: Sequence[Mapping[str, Any]] = (),
    cached_blanks: Mapping[str, Features] | None = None,
    step_samples: int = 0,
) -> Batch:
    """Pack texts one after the other into one sequence, and stack signals.

    Args:
        samples: to pack; without any, the batch is one ignored token, with which a rank keeps in step with the others.
        blanks: one time step ``[1 ...]`` of zeros per encoder: shape and dtype for samples without the modality.
        step_targets: supervised tokens of the optimizer step.
        skipped: samples that were planned for this batch and cannot be used.
        cached_blanks: one masked time step ``[1 1 N D]`` per encoder whose features are cached.
        step_samples: samples of the optimizer step.

    >>> sample = Packable({}, [1, 2], [IGNORE_INDEX, 2])
    >>> batch = pack([sample, sample], {"video": torch.zeros(1, 3, 8, 8)}, step_targets=2)
    >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.bounds
    ([[1, 2, 1, 2]], [[0, 1, 0, 1]], (0, 2, 4))
    >>> batch.signals["video"].values.shape
    torch.Size([2, 1, 3, 8, 8])
    """
    meta = tuple(sample.meta for sample in samples)
    samples = samples or [Packable({}, [0], [IGNORE_INDEX])]
    rows = list(chain(*((sample, *sample.more) for sample in samples)))
    features = _stack_cached(rows, cached_blanks or {})
    input_ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    bounds = [0]
    has_gaps = False
    for sample in samples:
        input_ids += sample.input_ids
        labels += sample.labels
        positions += range(len(sample.input_ids))
        bounds.append(len(input_ids))
        has_gaps |= any(not bool(cached.mask.all()) for cached in sample.features.values())
    return Batch(
        signals=_stack_signals(rows, blanks, features.keys()),
        input_ids=torch.tensor([input_ids]),
        labels=torch.tensor([labels]),
        position_ids=torch.tensor([positions]),
        bounds=tuple(bounds),
        step_targets=step_targets,
        meta=meta,
        skipped=tuple(skipped),
        features=features,
        has_gaps=has_gaps,
        rows=tuple(1 + len(sample.more) for sample in samples) if len(rows) > len(samples) else (),
        step_samples=step_samples,
        tilings=_stack_tilings(rows),
    )


def _stack_tilings(rows: Sequence[Packable]) -> Tensor | None:
    """Return the tiling of every row, ``[R 4]``; ``None`` where no row is an image in tiles."""
    if all(row.tiling is None for row in rows):
        return None
    return torch.tensor([row.tiling or Tiling(0, 0, 0, 0) for row in rows])


def _stack_cached(samples: Sequence[Packable], cached_blanks: Mapping[str, Features]) -> dict[str, Features]:
    """Stack cached features of each encoder, unless all its samples come as signals."""
    stacked = {}
    for name, blank in cached_blanks.items():
        is_cached = any(name in sample.features for sample in samples)
        if is_cached or all(name not in sample.signals for sample in samples):
            stacked[name] = stack_features([sample.features.get(name) for sample in samples], blank)
    return stacked


def _stack_signals(samples: Sequence[Packable], blanks: Mapping[str, Tensor], cached: Set[str]) -> dict[str, Signal]:
    """Stack signals of each encoder, unless all its samples come as cached features."""
    stacked = {}
    for name, blank in blanks.items():
        if name not in cached or any(name in sample.signals for sample in samples):
            signals = [sample.signals.get(name) for sample in samples]
            masks = [sample.masks.get(name) for sample in samples]
            stacked[name] = _stack(signals, masks, blank)
    return stacked


def _stack(signals: Sequence[Tensor | None], masks: Sequence[Tensor | None], blank: Tensor) -> Signal:
    """Stack signals of different lengths, padded with zeros; an absent signal has no valid time step."""
    longest = max(1, *(0 if signal is None else len(signal) for signal in signals))
    values = blank.new_zeros(len(signals), longest, *blank.shape[1:])
    valid, has_gaps = torch.zeros(len(signals), longest, dtype=torch.bool), False
    for number, (signal, mask) in enumerate(zip(signals, masks, strict=True)):
        if signal is None:
            continue
        values[number, : len(signal)] = signal
        valid[number, : len(signal)] = True if mask is None else mask
        has_gaps |= mask is not None and not bool(mask.all())
    return Signal(values, valid, has_gaps)


def stack_features(features: Sequence[Features | None], blank: Features) -> Features:
    """Stack features ``[1 T N D]`` of different lengths, padded with zeros; ``None`` has no valid token."""
    present = [entry for entry in features if entry is not None]
    prototype = present[0].tokens if present else blank.tokens
    longest = max(1, *(entry.tokens.shape[1] for entry in (*present, blank)))
    tokens = prototype.new_zeros(len(features), longest, *prototype.shape[2:])
    mask = torch.zeros(tokens.shape[:3], dtype=torch.bool)
    for number, entry in enumerate(features):
        if entry is not None:
            tokens[number, : entry.tokens.shape[1]] = entry.tokens[0]
            mask[number, : entry.tokens.shape[1]] = entry.mask[0]
    levels = []
    for depth, level_blank in enumerate(blank.levels):
        level = [None if entry is None else entry.levels[depth] for entry in features]
        levels.append(stack_features(level, level_blank))
    return Features(tokens, mask, blank.grid, tuple(levels))
