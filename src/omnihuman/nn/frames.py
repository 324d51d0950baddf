"""Resizing and normalization of frames for an encoder."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

Aspect = Literal["pad", "squash", "crop"]
"""Treatment of frames that are not square."""

COLORS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of red, green and blue, for values from 0 to 1."""


@dataclass(frozen=True)
class SquareFrames:
    """Frames ``[T 3 H W]`` of any shape -> square frames ``[T 3 S S]``, uint8.

    Reference: HumanOmni pads every frame to a square with 127 in training (``image_aspect_ratio pad``), then resizes
    bicubically with antialiasing; ``squash`` resizes without padding, as its inference does. ``crop`` resizes the
    shorter side and cuts the middle out, as VideoChat2's demos do with torchvision's ``Resize`` and ``CenterCrop``.

    Attributes:
        size: side S in pixels.
        aspect: ``pad``, ``squash`` or ``crop``.

    >>> SquareFrames(28)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([2, 3, 28, 28])
    """

    size: int
    aspect: Aspect = "pad"

    def __call__(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 S S"]:
        if self.aspect == "pad":
            frames = pad_to_square(frames)
        if self.aspect == "crop":
            return _crop_center(resize_frames(frames, _scale_shorter(frames, self.size)), self.size)
        return resize_frames(frames, (self.size, self.size))


def resize_frames(frames: UInt8[Tensor, "T 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "T 3 Y X"]:
    """Return frames of another height and width: bicubic with antialiasing, like Pillow."""
    if frames.shape[-2:] == size:
        return frames
    # interpolate uint8, not float: like Pillow it rounds after the horizontal and again after the vertical pass
    return F.interpolate(frames, size, mode="bicubic", antialias=True)


def _scale_shorter(frames: UInt8[Tensor, "T 3 H W"], size: int) -> tuple[int, int]:
    """Return height and width that keep the aspect ratio, where the shorter one is ``size``."""
    height, width = frames.shape[-2:]
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _crop_center(frames: UInt8[Tensor, "T 3 H W"], size: int) -> UInt8[Tensor, "T 3 S S"]:
    height, width = frames.shape[-2:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return frames[..., top : top + size, left : left + size]


def pad_to_square(frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 _ _"]:
    """Return frames with grey beside, or above and below them."""
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
