"""Frame sampling: which frames of a clip become the frames of a sample, known from its header."""

from math import ceil
from typing import Literal

Sampling = Literal["midpoints", "steps", "ends", "fps"]
"""Rule that selects ``num_frames`` of the ``count`` frames of a clip, both ends included.

``midpoints`` of equal segments, rounded (HumanOmni); ``steps`` of one segment, rounded, from half of one on
(VideoChat2); ``ends``: the first frame, the last one, and equal distances between them (LLaVA-OneVision); ``fps``: one
frame a second from the first on, and ``ends`` where that exceeds ``num_frames`` (LLaVA-OneVision's training)."""


def select_indices(count: int, num_frames: int, sampling: Sampling = "midpoints", fps: float = 25.0) -> list[int]:
    """Return the indices of ``num_frames`` frames of a clip; a short clip repeats frames.

    Reference: LLaVA-NeXT ``llava/utils.py`` (``process_video_with_decord``) and its OneVision tutorial, which cut
    fractions of an index off; VideoChat2 ``demo_mistral.ipynb`` (``get_index``).

    Args:
        count: frames of the clip.
        num_frames: frames to select, as ``count_frames`` counts them.
        sampling: the rule.
        fps: frames per second of the clip, for ``fps``.

    >>> select_indices(100, 8, "ends"), select_indices(100, 8, "steps")
    ([0, 14, 28, 42, 56, 70, 84, 99], [6, 18, 31, 43, 56, 68, 80, 93])
    >>> select_indices(100, 4, "fps", 25.0), select_indices(100, 3, "fps", 25.0)
    ([0, 25, 50, 75], [0, 49, 99])
    """
    if sampling == "midpoints":
        return uniform_indices(count, num_frames)
    segment = (count - 1) / num_frames
    if sampling == "steps":
        return [int(segment / 2) + round(segment * number) for number in range(num_frames)]
    step = seconds_step(fps)
    if sampling == "fps" and ceil(count / step) <= num_frames:
        return [min(step * number, count - 1) for number in range(num_frames)]
    if num_frames == 1:
        return [0]
    return [(count - 1) * number // (num_frames - 1) for number in range(num_frames)]


def count_frames(count: int, num_frames: int, sampling: Sampling, fps: float) -> int:
    """Return the number of frames that are selected of ``count``: ``num_frames``, fewer for ``fps`` and a short clip.

    >>> count_frames(100, 32, "fps", 25.0), count_frames(100, 32, "ends", 25.0)
    (4, 32)
    """
    return min(num_frames, ceil(count / seconds_step(fps))) if sampling == "fps" else num_frames


def seconds_step(fps: float) -> int:
    """Return the number of frames of one second, which is a whole one in the official code."""
    return max(1, round(fps))


def uniform_indices(count: int, num_frames: int) -> list[int]:
    """Return the midpoints of ``num_frames`` equal segments of ``[0, count - 1]``, rounded; a half is rounded up.

    Reference: HumanOmni ``frame_sample``, which adds 1e-6 before it rounds.

    >>> uniform_indices(100, 8), uniform_indices(25, 8)
    ([6, 19, 31, 43, 56, 68, 80, 93], [2, 5, 8, 11, 14, 17, 20, 23])
    """
    segment = (count - 1) / num_frames
    return [round(segment * (number + 0.5) + 1e-6) for number in range(num_frames)]


def count_in_span(num_frames: int, fps: float, span: tuple[float, float | None]) -> tuple[int, int]:
    """Return the first frame that is shown in a span of seconds, and the number of frames shown there, at least one.

    >>> count_in_span(100, 25.0, (1.0, 2.0)), count_in_span(100, 25.0, (0.0, None))
    ((25, 25), (0, 100))
    """
    start, end = span
    first = min(ceil(start * fps - 1e-6), num_frames - 1)
    last = num_frames if end is None else min(num_frames, ceil(end * fps - 1e-6))
    return first, max(1, last - first)
