"""The frames of a clip, decoded as the training decodes them."""

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.media import probe, read_file
from omnihuman.data.record import BadSample
from omnihuman.operator.base import Row

WINDOW = 30.0
"""Seconds that are decoded at once: the frames of a long clip would be scaled down to fit into memory together."""


def find_span(row: Row, timeout: float) -> tuple[float, float]:
    """Return first and last second of a row's video.

    Raises:
        BadSample: the file has no video, or cannot be read.
    """
    header = probe(row["file"], timeout)
    if not header.has_video or header.is_still:
        raise BadSample("no_video", f"{row['source']}: the file has no video.")
    end = row["end"] or row["start"] + row["seconds"]
    return row["start"], end


def take_frames(row: Row, rate: float | None, timeout: float, take: Callable[[DecodedFrame], Any]) -> Iterator[Any]:
    """Yield what ``take`` makes of the frames of a row, in order.

    Args:
        row: with ``seconds`` of ``probe``.
        rate: frames per second, the midpoints of equal segments; ``None``: all frames.
        timeout: seconds for each window of the file.
        take: makes of every frame what stays of it.

    Raises:
        BadSample: the file has no video, or is damaged.
    """
    begin, end = find_span(row, timeout)
    header = probe(row["file"], timeout)
    num_windows = max(1, ceil((end - begin) / WINDOW))
    for number in range(num_windows):
        first = begin + number * WINDOW
        last = end if number == num_windows - 1 else first + WINDOW
        num_frames = max(1, round((last - first) * (rate or header.fps)))
        clip = read_file(row["file"], num_frames, 0, (first, last), header, timeout, take=take)
        previous = None
        for step, time in zip(clip.steps, clip.times, strict=True):
            if time != previous:  # a short clip repeats frames
                yield time, step
            previous = time
