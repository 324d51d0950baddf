"""Clips are compared by their pixels, wherever they begin."""

import io

import numpy as np
import pytest
from PIL import Image

from omnihuman.operator.thumbnails import MAX_FRAMES, find_change, make_thumbnails


def draw(number: int, side: int = 48, quality: int = 90, face: int = 200) -> bytes:
    """Return a JPEG of a square that moves over a gradient."""
    pixels = np.tile(np.arange(side, dtype=np.uint8) * (96 // side), (side, 1))
    step = side // 12
    pixels[4 * step : 7 * step, (number % 9) * step : (number % 9 + 3) * step] = face
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_copies_differ_little_and_others_much() -> None:
    clip = make_thumbnails([draw(number) for number in range(9)])
    assert find_change(clip, clip) == pytest.approx(0, abs=1e-6)
    small = make_thumbnails([draw(number, side=24, quality=40) for number in range(9)])
    late = make_thumbnails([draw(number) for number in range(2, 9)])
    other = make_thumbnails([draw(number, face=90) for number in range(9)])
    assert max(find_change(clip, small), find_change(clip, late), find_change(late, clip)) < 0.04
    assert find_change(clip, other) > 0.2 and find_change(clip, []) == 1.0


def test_thumbnails_are_of_the_middle() -> None:
    frames = [draw(number) for number in range(MAX_FRAMES + 4)]
    assert make_thumbnails(frames) == make_thumbnails(frames[2:-2])
