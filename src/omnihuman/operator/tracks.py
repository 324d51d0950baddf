"""Tracks: boxes of frames joined to faces or persons through time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from omnihuman.data.record import Box


@dataclass
class Track:
    """A face or a person through time.

    Attributes:
        times: seconds in the file.
        boxes: at these seconds.
    """

    times: list[float] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


def join_boxes(
    frames: Sequence[tuple[float, Sequence[Box]]], least_overlap: float = 0.3, max_gap: float = 1.0
) -> list[Track]:
    """Return the tracks of boxes, by an assignment of the largest total overlap from frame to frame.

    Reference: SORT (Bewley et al., 2016) §3.3. Differs from it: without a motion model, because faces at 5 FPS overlap.

    Args:
        frames: seconds and boxes, in order.
        least_overlap: intersection over union below which boxes are of two tracks.
        max_gap: seconds after which a track that had no box ends.

    >>> first, second, other = (0.0, 0.0, 4.0, 4.0), (1.0, 0.0, 5.0, 4.0), (9.0, 9.0, 12.0, 12.0)
    >>> [track.times for track in join_boxes([(0.0, [first]), (0.2, [second, other])])]
    [[0.0, 0.2], [0.2]]
    """
    from scipy.optimize import linear_sum_assignment

    tracks: list[Track] = []
    for time, boxes in frames:
        active = [track for track in tracks if time - track.times[-1] <= max_gap]
        overlaps = compute_overlaps([track.boxes[-1] for track in active], boxes)
        joined = dict[int, Track]()
        for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
            if overlaps[row, column] >= least_overlap:
                joined[int(column)] = active[row]
        for number, box in enumerate(boxes):
            track = joined.get(number)
            if track is None:
                track = Track()
                tracks.append(track)
            track.times.append(time)
            track.boxes.append(box)
    return tracks


def compute_overlaps(first: Sequence[Box], second: Sequence[Box]) -> Float[np.ndarray, "N M"]:
    """Return the intersection over union of every pair of boxes."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    a, b = np.array(first, dtype=float)[:, None], np.array(second, dtype=float)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    overlaps: np.ndarray = shared / (areas[0] + areas[1] - shared)
    return overlaps
