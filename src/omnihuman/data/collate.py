"""Samples -> one packed batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from omnihuman.types import IGNORE_INDEX, Batch, Features, Signal


@dataclass(frozen=True, slots=True)
class Packable:
    """One sample, ready to be packed.

    Attributes:
        signals: moments ``[T ...]`` by encoder name; a modality it lacks is left out.
        input_ids: of its text, slots expanded.
        labels: the supervised ids at their own places.
        meta: what validation and reports want to know of it.
        real: which moments ``[T]`` of a signal are real, where not all of them may be.
        features: what encoders have made of it before, ``[1 T N D]``, in the place of their signals.
    """

    signals: Mapping[str, Tensor]
    input_ids: Sequence[int]
    labels: Sequence[int]
    meta: Mapping[str, Any] = field(default_factory=dict)
    real: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Features] = field(default_factory=dict)


def pack(
    samples: Sequence[Packable],
    blanks: Mapping[str, Tensor],
    step_targets: int,
    skipped: Sequence[Mapping[str, Any]] = (),
    kept: Mapping[str, Features] | None = None,
) -> Batch:
    """Samples one after the other in one row, their signals one below the other.

    Args:
        samples: what to pack; none makes a blank batch of one ignored token, with which a rank keeps step.
        blanks: for each encoder one moment ``[1 ...]`` of zeros: the shape and type of what a sample lacks.
        step_targets: supervised tokens of the optimizer step.
        skipped: what was planned for this row and could not be used.
        kept: of encoders whose features are kept, one blank moment ``[1 1 N D]``.

    >>> one = Packable({}, [1, 2], [IGNORE_INDEX, 2])
    >>> batch = pack([one, one], {"video": torch.zeros(1, 3, 8, 8)}, step_targets=2)
    >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.bounds.tolist()
    ([[1, 2, 1, 2]], [[0, 1, 0, 1]], [0, 2, 4])
    >>> batch.signals["video"].values.shape
    torch.Size([2, 1, 3, 8, 8])
    """
    meta = tuple(sample.meta for sample in samples)
    samples = samples or [Packable({}, [0], [IGNORE_INDEX])]
    lengths = torch.tensor([len(sample.input_ids) for sample in samples])
    features = {
        name: stack_features([sample.features.get(name) for sample in samples], blank)
        for name, blank in (kept or {}).items()
        if any(name in sample.features for sample in samples) or all(name not in sample.signals for sample in samples)
    }
    return Batch(
        signals={
            name: _stack([(sample.signals.get(name), sample.real.get(name)) for sample in samples], blank)
            for name, blank in blanks.items()
            if name not in features or any(name in sample.signals for sample in samples)
        },
        input_ids=torch.tensor([[token for sample in samples for token in sample.input_ids]]),
        labels=torch.tensor([[label for sample in samples for label in sample.labels]]),
        position_ids=torch.cat([torch.arange(int(length)) for length in lengths])[None],
        bounds=torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths.cumsum(0)]),
        step_targets=step_targets,
        meta=meta,
        skipped=tuple(skipped),
        features=features,
        has_gaps=any(not bool(made.mask.all()) for sample in samples for made in sample.features.values()),
    )


def _stack(signals: Sequence[tuple[Tensor | None, Tensor | None]], blank: Tensor) -> Signal:
    """Signals of different lengths in one tensor, padded with zeros; one that is absent has no real moment."""
    longest = max(1, *(0 if moments is None else len(moments) for moments, _ in signals))
    values = blank.new_zeros(len(signals), longest, *blank.shape[1:])
    mask, has_gaps = torch.zeros(len(signals), longest, dtype=torch.bool), False
    for row, (moments, real) in enumerate(signals):
        if moments is not None:
            values[row, : len(moments)] = moments
            mask[row, : len(moments)] = True if real is None else real
            has_gaps |= real is not None and not bool(real.all())
    return Signal(values, mask, has_gaps)


def stack_features(rows: Sequence[Features | None], blank: Features) -> Features:
    """Features ``[1 T N D]`` of different lengths in one tensor, as signals are; ``None`` has no real token."""
    there = [row for row in rows if row is not None]
    like = there[0].tokens if there else blank.tokens
    longest = max(1, *(row.tokens.shape[1] for row in (*there, blank)))
    tokens = like.new_zeros(len(rows), longest, *like.shape[2:])
    mask = torch.zeros(tokens.shape[:3], dtype=torch.bool)
    for number, row in enumerate(rows):
        if row is not None:
            tokens[number, : row.tokens.shape[1]] = row.tokens[0]
            mask[number, : row.tokens.shape[1]] = row.mask[0]
    levels = tuple(
        stack_features([None if row is None else row.levels[depth] for row in rows], level)
        for depth, level in enumerate(blank.levels)
    )
    return Features(tokens, mask, blank.grid, levels)
