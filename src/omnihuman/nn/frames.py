"""Resizing and normalization of frames for an encoder."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

Aspect = Literal["pad", "squash", "crop"]
"""Treatment of frames that are not square."""

GREY = 127
"""Value of the padding, in every color."""

COLORS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of red, green and blue, for values from 0 to 1."""


@dataclass(frozen=True)
class SquareFrames:
    """Frames ``[T 3 H W]`` of any shape -> square frames ``[T 3 S S]``, uint8.

    Frames are resized one by one, rows first and then columns, in the layout in which a decoder leaves them (rows,
    columns, colors): every value equals that of the padded frame resized at once, and the grey rows above and below a
    frame are never resized across.

    Reference: HumanOmni pads every frame to a square with 127 in training (``image_aspect_ratio pad``), then resizes
    bicubically with antialiasing; ``squash`` resizes without padding, as its inference does. ``crop`` resizes the
    shorter side and cuts the middle out, as VideoChat2's demos do with torchvision's ``Resize`` and ``CenterCrop``.

    Attributes:
        size: side S in pixels.
        aspect: ``pad``, ``squash`` or ``crop``.
        is_framewise: the square of a frame depends on that frame alone, so that no other frame needs to be in memory.

    >>> SquareFrames(28)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([2, 3, 28, 28])
    """

    size: int
    aspect: Aspect = "pad"
    is_framewise: ClassVar[bool] = True

    def __call__(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 S S"]:
        return self._stack([self._resize(_to_rows(frame)) for frame in frames])

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width to which a frame is scaled before ``place``.

        >>> SquareFrames(384).fit(720, 1280), SquareFrames(384, "crop").fit(720, 1280)
        ((216, 384), (384, 682))
        """
        if self.aspect == "squash":
            return self.size, self.size
        if self.aspect == "crop":
            return _scale_shorter(height, width, self.size)
        longer = max(height, width)
        return max(1, round(height * self.size / longer)), max(1, round(width * self.size / longer))

    def place(self, frames: UInt8[Tensor, "T 3 h w"]) -> UInt8[Tensor, "T 3 S S"]:
        """Return the squares of frames that are scaled as ``fit`` says: padded, or their middle."""
        center = _crop_center if self.aspect == "crop" else _pad
        return self._stack([center(_to_rows(frame), (self.size, self.size)) for frame in frames])

    def _resize(self, rows: UInt8[Tensor, "H W 3"]) -> UInt8[Tensor, "S S 3"]:
        height, width, size = *rows.shape[:2], self.size
        if self.aspect == "crop":
            return _crop_center(_resize_rows(rows, _scale_shorter(height, width, size)), (size, size))
        if self.aspect == "pad" and height < width:  # across first, as Pillow does, without the grey rows
            rows = _pad(_resize_rows(rows, (height, size)), (width, size))
        elif self.aspect == "pad":
            rows = _pad(rows, (height, height))
        return _resize_rows(rows, (size, size))

    def _stack(self, squares: list[Tensor]) -> UInt8[Tensor, "T 3 S S"]:
        planes = np.empty((len(squares), 3, self.size, self.size), np.uint8)
        for frame, rows in zip(planes, squares, strict=True):
            for color, plane in enumerate(frame):
                plane[:] = rows.numpy()[..., color]  # by numpy, twice as fast as by torch
        return torch.from_numpy(planes)


def _to_rows(frame: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "H W 3"]:
    """Return a frame in the layout in which a decoder leaves it, without a copy where it has it."""
    return frame.permute(1, 2, 0).contiguous()


def _resize_rows(rows: UInt8[Tensor, "H W 3"], size: tuple[int, int]) -> UInt8[Tensor, "Y X 3"]:
    """Return an image of another height and width, in the same layout of memory."""
    return resize_frames(rows[None].permute(0, 3, 1, 2), size)[0].permute(1, 2, 0)


def resize_frames(frames: UInt8[Tensor, "T 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "T 3 Y X"]:
    """Return frames of another height and width: bicubic with antialiasing, like Pillow."""
    if frames.shape[-2:] == size:
        return frames
    # interpolate uint8, not float: like Pillow it rounds after the horizontal and again after the vertical pass
    return F.interpolate(frames, size, mode="bicubic", antialias=True)


def _scale_shorter(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width that keep the aspect ratio, where the shorter one is ``size``."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _crop_center(rows: UInt8[Tensor, "H W 3"], size: tuple[int, int]) -> UInt8[Tensor, "Y X 3"]:
    top, left = (round((side - smaller) / 2) for side, smaller in zip(rows.shape, size, strict=False))
    return rows[top : top + size[0], left : left + size[1]]


def _pad(rows: UInt8[Tensor, "H W 3"], size: tuple[int, int]) -> UInt8[Tensor, "Y X 3"]:
    """Return an image in the middle of a larger grey one."""
    height, width = rows.shape[:2]
    if (height, width) == size:
        return rows
    padded = rows.new_full((*size, 3), GREY)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded[top : top + height, left : left + width] = rows
    return padded


def pad_to_square(frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 _ _"]:
    """Return frames with grey beside, or above and below them."""
    height, width = frames.shape[-2:]
    difference = abs(height - width)
    before, after = difference // 2, difference - difference // 2
    if width > height:
        return F.pad(frames, (0, 0, before, after), value=GREY)
    if height > width:
        return F.pad(frames, (before, after, 0, 0), value=GREY)
    return frames


def normalize_colors(frames: UInt8[Tensor, "*B 3 H W"], colors: str, dtype: torch.dtype) -> Float[Tensor, "*B 3 H W"]:
    """Return pixels of mean 0 and deviation 1, by the statistics ``colors`` of ``COLORS``."""
    pixels = frames.to(dtype)
    mean, deviation = COLORS[colors]
    return (pixels - _per_channel(mean, pixels)) / _per_channel(deviation, pixels)


def _per_channel(values: tuple[float, ...], pixels: Tensor) -> Float[Tensor, "3 1 1"]:
    return pixels.new_tensor(values).mul(255)[:, None, None]
