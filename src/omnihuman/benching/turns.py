"""Seconds of several ways to do the same, which take turns, so that a load of the machine meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Seconds = dict[str, list[float]]
"""Seconds of every repeat, by way."""


def select_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock of a device: seconds of this process on a CPU, and those of a GPU that has finished its work."""
    if device.type != "cuda":
        return time.process_time

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def measure_in_turns(
    ways: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    clock: Callable[[], float] = time.process_time,
    prepare: Callable[[str], object] | None = None,
    deadline: float = float("inf"),
) -> Seconds:
    """Return the seconds of every way in every repeat; one repeat before them warms up.

    Args:
        ways: by name.
        repeats: rounds in which every way runs once.
        clock: seconds.
        prepare: called with the name of a way before it runs; its time does not count.
        deadline: moment of ``time.monotonic`` after which no further round begins, but for the first two.

    >>> {name: len(values) for name, values in measure_in_turns({"a": list, "b": dict}, repeats=2).items()}
    {'a': 2, 'b': 2}
    """
    seconds: Seconds = {name: [] for name in ways}
    for number in range(repeats + 1):
        if number > 1 and time.monotonic() > deadline:
            break
        for name, way in ways.items():
            if prepare is not None:
                prepare(name)
            begin = clock()
            way()
            if number:
                seconds[name].append(clock() - begin)
    return seconds


def take_medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of every way that has been measured.

    >>> take_medians({"a": [3.0, 1.0, 2.0], "b": []})
    {'a': 2.0}
    """
    return {name: statistics.median(values) for name, values in seconds.items() if values}
