"""Thumbnails of a clip: small gray frames by which two clips are compared pixel by pixel, wherever they begin."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

SIDE, BLOCK = 12, 3
"""Pixels of a thumbnail, and of the squares of it that are compared; a square is 5 x 4 to a frame."""

MAX_FRAMES = 16
"""Thumbnails of a clip, from its middle: three seconds at 5 frames per second."""

WORST = 2
"""Squares that differ the most: two clips of one place differ in few, copies of one clip in none."""

NOISE = 400.0
"""Squared gray levels of differences that count for little, those of a compression."""


def make_thumbnails(jpegs: Sequence[bytes]) -> list[bytes]:
    """Return the thumbnails of frames, from the middle of the clip."""
    first = max(0, (len(jpegs) - MAX_FRAMES) // 2)
    thumbnails = []
    for jpeg in jpegs[first : first + MAX_FRAMES]:
        image = Image.open(io.BytesIO(jpeg)).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        thumbnails.append(image.tobytes())
    return thumbnails


def find_change(first: Sequence[bytes], second: Sequence[bytes]) -> float:
    """Return how much two clips differ in their most different squares, from 0, at the best shift in time.

    The difference of two squares is one minus their structural similarity (Wang et al., 2004), averaged over the frames
    that both clips have; at least half of the shorter one are compared.
    """
    a, b = _split(first), _split(second)
    shorter = min(len(a), len(b))
    if not shorter:
        return 1.0
    least = max(min(3, shorter), shorter // 2)
    changes = []
    for shift in range(least - len(a), len(b) - least + 1):
        begin, end = max(0, -shift), min(len(a), len(b) - shift)
        squares = _compare(a[begin:end], b[begin + shift : end + shift]).mean(0)
        changes.append(float(np.sort(squares)[-WORST:].mean()))
    return min(changes)


def _split(thumbnails: Sequence[bytes]) -> Any:
    """Return the squares of thumbnails ``[frames squares pixels]``."""
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).astype(np.float32)
    num = SIDE // BLOCK
    return pixels.reshape(-1, num, BLOCK, num, BLOCK).transpose(0, 1, 3, 2, 4).reshape(-1, num * num, BLOCK * BLOCK)


def _compare(a: Any, b: Any) -> Any:
    """Return the differences of squares ``[frames squares]``."""
    mean_a, mean_b = a.mean(2), b.mean(2)
    variances = a.var(2) + b.var(2)
    covariance = (a * b).mean(2) - mean_a * mean_b
    light = (2 * mean_a * mean_b + NOISE) / (mean_a**2 + mean_b**2 + NOISE)
    return 1 - light * (2 * covariance + NOISE) / (variances + NOISE)
