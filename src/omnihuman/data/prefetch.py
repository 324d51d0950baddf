"""Prefetching: micro-batches that workers load ahead, by the memory that they take."""

from collections.abc import Sequence

from omnihuman.data.dataset import Samples
from omnihuman.data.packing import MicroBatch
from omnihuman.modality import BY_FIELD, INSTRUCTION

MAX_AHEAD = 4
"""Most micro-batches that each worker loads ahead."""

NUM_MEASURED = 256
"""Micro-batches of an epoch that are measured, at equal distances: all are limited to the same number of tokens."""


def count_ahead(samples: Samples, plan: Sequence[MicroBatch], num_workers: int, max_bytes: int) -> int:
    """Return the number of micro-batches that each worker loads ahead, at least one.

    Args:
        samples: planned.
        plan: the micro-batches of an epoch.
        num_workers: workers of the loader.
        max_bytes: of all batches that are loaded and not used yet.
    """
    sizes = measure_units(samples)
    measured = plan[:: max(1, len(plan) // NUM_MEASURED)]
    largest = max((measure_batch(samples, micro_batch, sizes) for micro_batch in measured), default=0)
    return max(1, min(MAX_AHEAD, int(max_bytes / max(1.0, num_workers * largest))))


def measure_units(samples: Samples) -> list[tuple[str, float]]:
    """Return, for each encoder, the field from which its input is planned, and bytes per frame or audio sample.

    Cached features take the place of the input; they have at most as many time steps.
    """
    units = []
    for name, (field, transform) in samples.transforms.items():
        if field == INSTRUCTION:
            continue
        value = BY_FIELD[field].blank()
        steps = transform(value)
        size = steps[0].nbytes
        if samples.cached is not None and name in samples.cached.blanks:
            blank = samples.cached.blanks[name]
            size = sum(part.tokens[0, 0].nbytes for part in (blank, *blank.levels))
        units.append((BY_FIELD[field].planned_from, size * len(steps) / len(value)))
    return units


def measure_batch(samples: Samples, micro_batch: MicroBatch, units: Sequence[tuple[str, float]]) -> float:
    """Return the bytes of the signals of a batch, without those of its padding."""
    size = 0.0
    for index in micro_batch.indices:
        planned = samples.planned[index]
        size += len(planned.record.clips) * sum(planned.amounts[field] * unit for field, unit in units)
    return size
