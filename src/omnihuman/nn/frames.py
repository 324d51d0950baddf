"""Resizing and normalization of frames for an encoder."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

COLORS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of red, green and blue, for values from 0 to 1."""


@dataclass(frozen=True)
class SquareFrames:
    """Frames ``[T 3 H W]`` of any shape -> square frames ``[T 3 S S]``, uint8.

    Reference: HumanOmni pads every frame to a square with 127 in training (``image_aspect_ratio pad``), then resizes
    bicubically with antialiasing; ``squash`` resizes without padding, as its inference does.

    Attributes:
        size: side S in pixels.
        aspect: ``pad`` or ``squash``.

    >>> SquareFrames(28)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([2, 3, 28, 28])
    """

    size: int
    aspect: Literal["pad", "squash"] = "pad"

    def __call__(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 S S"]:
        if self.aspect == "pad":
            frames = _pad_to_square(frames)
        if frames.shape[-2:] == (self.size, self.size):
            return frames
        # interpolate uint8, not float: like Pillow it rounds after the horizontal and again after the vertical pass
        return F.interpolate(frames, (self.size, self.size), mode="bicubic", antialias=True)


def _pad_to_square(frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 _ _"]:
    height, width = frames.shape[-2:]
    difference = abs(height - width)
    before, after = difference // 2, difference - difference // 2
    if width > height:
        return F.pad(frames, (0, 0, before, after), value=127)
    if height > width:
        return F.pad(frames, (before, after, 0, 0), value=127)
    return frames


def normalize_colors(frames: UInt8[Tensor, "*B 3 H W"], colors: str, dtype: torch.dtype) -> Float[Tensor, "*B 3 H W"]:
    """Return pixels of mean 0 and deviation 1, by the statistics ``colors`` of ``COLORS``."""
    pixels = frames.to(dtype)
    mean, deviation = COLORS[colors]
    return (pixels - _per_channel(mean, pixels)) / _per_channel(deviation, pixels)


def _per_channel(values: tuple[float, ...], pixels: Tensor) -> Float[Tensor, "3 1 1"]:
    return pixels.new_tensor(values).mul(255)[:, None, None]
