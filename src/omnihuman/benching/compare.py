"""Comparisons of ways to run a training step, and of its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from omnihuman.benching.table import Table, divide
from omnihuman.benching.turns import measure_in_turns, select_clock, take_medians
from omnihuman.benching.ways import TrainingStep, Way, count_tokens
from omnihuman.cost.flops import FlopCounter
from omnihuman.cost.peaks import find_peak
from omnihuman.model.dtypes import AUTOCAST
from omnihuman.types import Batch

GIB = 2**30


@dataclass
class Result:
    """Figures of one way.

    Attributes:
        seconds: median of its steps; ``None`` if the device has too little memory.
        flops: useful FLOPs of a step.
        peak: bytes on the device at most; ``None`` on a CPU.
    """

    seconds: float | None
    flops: float
    peak: int | None


def measure_ways(
    step: TrainingStep, ways: Mapping[str, Way], repeats: int, deadline: float = float("inf")
) -> dict[str, Result]:
    """Return the figures of every way; they take turns.

    A way begins each turn with a step that does not count: the one before it has left other memory and dtypes.
    """
    flops, peaks, too_large = {}, dict[str, int](), set[str]()
    is_cuda = step.device.type == "cuda"

    def attempt(name: str) -> None:
        if name in too_large:
            return
        try:
            step.run()
        except torch.OutOfMemoryError:
            too_large.add(name)
        if name in too_large:  # the error, which holds the tensors of the step, is gone
            step.free()

    def prepare(name: str) -> None:
        step.use(ways[name])
        if is_cuda:
            attempt(name)
            torch.cuda.reset_peak_memory_stats()

    def run(name: str) -> None:
        attempt(name)
        if is_cuda:
            peaks[name] = max(peaks.get(name, 0), torch.cuda.max_memory_allocated())

    for name, way in ways.items():
        step.use(replace(way, checkpointing=1.0))  # the same FLOPs, which fit into the memory
        flops[name] = sum(step.count_flops().values())
    calls = {name: (lambda name=name: run(name)) for name in ways}
    seconds = measure_in_turns(calls, repeats, clock=select_clock(step.device), prepare=prepare, deadline=deadline)
    medians: dict[str, Any] = take_medians(seconds) | dict.fromkeys(too_large)
    return {name: Result(medians[name], flops[name], peaks.get(name)) for name in ways}


def build_table(title: str, step: TrainingStep, results: Mapping[str, Result], *references: str) -> Table:
    """Return a row for every way, with the ratios of the references' times to its own."""
    tokens = count_tokens(step.batches)
    columns = ("way", "ms", *(f"{name} / way" for name in references), "tokens/s", "TFLOP/s", "MFU", "GiB")
    table = Table(f"{title}, {tokens:,} tokens, {step.device.type}", columns)
    for name, result in results.items():
        ratios = [divide(results[reference].seconds, result.seconds) for reference in references]
        rate = divide(result.flops, result.seconds)
        row = [name, _scale(result.seconds, 1e3), *ratios, divide(tokens, result.seconds), _scale(rate, 1e-12)]
        table.rows.append([*row, find_mfu(step, rate), _scale(result.peak, 1 / GIB)])
        if result.seconds is None:
            table.rows[-1] = [f"{name}: out of memory", *[None] * (len(columns) - 1)]
    return table


def measure_parts(title: str, step: TrainingStep, batch: Batch, repeats: int = 3) -> Table:
    """Return a row for a forward and backward pass of every part alone, on its inputs in a micro-batch."""
    clock = select_clock(step.device)
    seconds = take_medians(measure_in_turns(step.list_calls(batch), repeats, clock=clock))
    counter = FlopCounter(step.model)
    with step.precision.forward_context(), counter.count():
        step.model(batch)
    table = Table(title, ("part", "ms", "share", "TFLOPs", "TFLOP/s", "MFU"))
    total = sum(seconds.values())
    for name, value in seconds.items():
        flops = counter.parts[name].training if name in counter.parts else 0.0
        rate = flops / value
        table.rows.append((name, value * 1e3, value / total, flops / 1e12, rate / 1e12, find_mfu(step, rate)))
    return table


def find_mfu(step: TrainingStep, rate: float | None) -> float | None:
    """Return the share of the device's peak that a rate of FLOP/s is; ``None`` if there is no peak to compare with."""
    if step.device.type != "cuda" or step.way.precision not in AUTOCAST:
        return None
    return divide(rate, find_peak(torch.cuda.get_device_name(step.device)))


def _scale(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
