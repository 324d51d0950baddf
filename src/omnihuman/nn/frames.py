"""Frames of any shape, made fit for an encoder."""

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
"""Mean and standard deviation of red, green and blue, of values up to 1."""


@dataclass(frozen=True)
class SquareFrames:
    """Frames ``[T 3 H W]`` of any shape -> square frames ``[T 3 S S]``, uint8.

    Reference: HumanOmni pads every frame to a square with 127 while training (``image_aspect_ratio pad``), then
    resizes bicubically with antialiasing; ``squash`` resizes without padding, as its inference does.

    Attributes:
        size: side S in pixels.
        aspect: ``pad`` or ``squash``.

    >>> SquareFrames(28)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([2, 3, 28, 28])
    """

    size: int
    aspect: Literal["pad", "squash"] = "pad"

    def __call__(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 S S"]:
        height, width = frames.shape[-2:]
        if self.aspect == "pad" and height != width:
            over = abs(height - width)
            before, after = over // 2, over - over // 2
            sides = (0, 0, before, after) if width > height else (before, after, 0, 0)
            frames = F.pad(frames, sides, value=127)
        if frames.shape[-2:] == (self.size, self.size):
            return frames
        # in whole levels, as Pillow does it: one pass rounds before the next begins
        return F.interpolate(frames, (self.size, self.size), mode="bicubic", antialias=True)


def normalized(frames: UInt8[Tensor, "*B 3 H W"], colors: str, dtype: torch.dtype) -> Float[Tensor, "*B 3 H W"]:
    """Colours of about mean 0 and deviation 1, by one of ``COLORS``."""
    pixels = frames.to(dtype)
    mean, deviation = (pixels.new_tensor(values).mul(255)[:, None, None] for values in COLORS[colors])
    return (pixels - mean) / deviation
