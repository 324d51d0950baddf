"""Samples -> one packed batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from omnihuman.types import IGNORE_INDEX, Batch, Signal


@dataclass(frozen=True, slots=True)
class Packable:
    """One sample, ready to be packed.

    Attributes:
        signals: moments ``[T ...]`` by encoder name; a modality it lacks is left out.
        input_ids: of its text, slots expanded.
        labels: the supervised ids at their own places.
        meta: what validation and reports want to know of it.
        real: which moments ``[T]`` of a signal are real, where not all of them may be.
    """

    signals: Mapping[str, Tensor]
    input_ids: Sequence[int]
    labels: Sequence[int]
    meta: Mapping[str, Any] = field(default_factory=dict)
    real: Mapping[str, Tensor] = field(default_factory=dict)


def pack(
    samples: Sequence[Packable],
    blanks: Mapping[str, Tensor],
    step_targets: int,
    skipped: Sequence[Mapping[str, Any]] = (),
) -> Batch:
    """Samples one after the other in one row, their signals one below the other.

    Args:
        samples: what to pack; none makes a blank batch of one ignored token, with which a rank keeps step.
        blanks: for each encoder one moment ``[1 ...]`` of zeros: the shape and type of what a sample lacks.
        step_targets: supervised tokens of the optimizer step.
        skipped: what was planned for this row and could not be used.

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
    return Batch(
        signals={
            name: _stack([(sample.signals.get(name), sample.real.get(name)) for sample in samples], blank)
            for name, blank in blanks.items()
        },
        input_ids=torch.tensor([[token for sample in samples for token in sample.input_ids]]),
        labels=torch.tensor([[label for sample in samples for label in sample.labels]]),
        position_ids=torch.cat([torch.arange(int(length)) for length in lengths])[None],
        bounds=torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths.cumsum(0)]),
        step_targets=step_targets,
        meta=meta,
        skipped=tuple(skipped),
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
