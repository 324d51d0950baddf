"""Tiles of an image: their pixels before an encoder, and the order of their tokens behind it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnihuman.nn.frames import pad_to_square, resize_frames
from omnihuman.nn.grid import resize_grid
from omnihuman.types import Tiling

MAX_EXCESS = 1.1
"""Sides of tokens that may exceed those of ``max_tiles`` tiles by this factor before they are shrunk."""


@dataclass(frozen=True)
class Tiles:
    """The grids into which an image may be cut.

    Reference: LLaVA-NeXT ``mm_utils.py``, ``image_aspect_ratio`` anyres and anyres_max_N.

    Attributes:
        size: side of a tile in pixels, that of the encoder's frames.
        grids: (rows, columns).
    """

    size: int
    grids: tuple[tuple[int, int], ...]

    @property
    def untiled(self) -> Tiling:
        """The tiling of an image that stays whole, padded to a square: one of several images."""
        return Tiling(0, 0, self.size, self.size)

    def choose(self, height: int, width: int) -> Tiling:
        """Return the tiling that leaves most of an image's pixels, and of several such ones the smallest.

        >>> Tiles(384, ((1, 1), (1, 2), (2, 1), (2, 2))).choose(480, 1000)[:2]
        (1, 2)
        """

        def rank(grid: tuple[int, int]) -> tuple[int, int]:
            rows, columns = grid[0] * self.size, grid[1] * self.size
            scale = min(columns / width, rows / height)
            num_used = min(int(width * scale) * int(height * scale), width * height)
            return num_used, -rows * columns

        rows, columns = max(self.grids, key=rank)
        return Tiling(rows, columns, height, width)

    def cut(self, image: UInt8[Tensor, "1 3 H W"], tiling: Tiling) -> UInt8[Tensor, "T 3 S S"]:
        """Return the base and the tiles of an image, or an image that stays whole as one frame.

        Reference: LLaVA-NeXT squashes the base; the image in the tiles keeps its aspect ratio, on black.
        """
        size = (self.size, self.size)
        if not tiling.rows:
            return resize_frames(pad_to_square(image), size)
        height, width = tiling.rows * self.size, tiling.columns * self.size
        vertical, horizontal = height / image.shape[-2], width / image.shape[-1]
        if horizontal < vertical:
            inner = (min(math.ceil(image.shape[-2] * horizontal), height), width)
        else:
            inner = (height, min(math.ceil(image.shape[-1] * vertical), width))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        padding = (left, width - inner[1] - left, top, height - inner[0] - top)
        plane = F.pad(resize_frames(image, inner), padding)
        tiles = rearrange(plane, "1 C (R H) (K W) -> (R K) C H W", H=self.size, W=self.size)
        return torch.cat([resize_frames(image, size), tiles])


def parse_tiles(raw: Any) -> Tiles | None:
    """Return the option ``data.tiles``.

    Raises:
        ValueError: it is not ``{size, grids}`` with numbers of pixels, rows and columns.
    """
    if raw is None:
        return None
    expected = "expected {size: <pixels>, grids: [[<rows>, <columns>], ...]}"
    if not isinstance(raw, Mapping) or {*raw} != {"size", "grids"}:
        raise ValueError(f"data.tiles={raw!r:.200}; {expected}.")
    grids = raw["grids"]
    is_list = isinstance(grids, list | tuple) and len(grids) > 0
    if not is_list or not _are_counts(raw["size"]) or not all(_is_pair(grid) for grid in grids):
        raise ValueError(f"data.tiles={dict(raw)!r:.200}; {expected}.")
    return Tiles(raw["size"], tuple((rows, columns) for rows, columns in grids))


def _is_pair(grid: Any) -> bool:
    return isinstance(grid, list | tuple) and len(grid) == 2 and _are_counts(*grid)


def _are_counts(*values: Any) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in values)


def count_tokens(tiling: Tiling, grid: tuple[int, int], max_tiles: int | None) -> int:
    """Return the number of tokens of ``arrange_tokens``.

    >>> count_tokens(Tiling(1, 2, 480, 1000), (27, 27), 9)
    2104
    """
    num_base = grid[0] * grid[1]
    if not tiling.rows:
        return num_base + 1
    rows, columns = _shrink(*_crop(tiling, grid)[1], grid, max_tiles)
    return num_base + rows * (columns + 1)


def arrange_tokens(
    tokens: Float[Tensor, "T N D"],
    tiling: Tiling,
    grid: tuple[int, int],
    newline: Float[Tensor, " D"],
    max_tiles: int | None,
) -> Float[Tensor, "L D"]:
    """Return the tokens of the base, then those of the image's rows in the tiles, with a newline after each row.

    Reference: LLaVA-NeXT ``llava_arch.py``, ``mm_patch_merge_type`` spatial_unpad; transformers'
    ``pack_image_features``, which rounds as we do where the original loses a row to a float.

    Args:
        tokens: of the base and of every tile; more time steps are padding.
        tiling: of the image.
        grid: rows and columns of the N tokens of a tile.
        newline: token at the end of a row, or of an image that stays whole.
        max_tiles: tokens of more tiles are resized to as many as these have (N of anyres_max_N); ``None``: never.
    """
    newline = newline.to(tokens.dtype)
    if not tiling.rows:
        return torch.cat([tokens[0], newline[None]])
    tiles = tokens[1 : 1 + tiling.rows * tiling.columns]
    plane = rearrange(tiles, "(R K) (H W) D -> (R H) (K W) D", R=tiling.rows, H=grid[0])
    (top, left), (rows, columns) = _crop(tiling, grid)
    plane = plane[top : top + rows, left : left + columns]
    shape = _shrink(rows, columns, grid, max_tiles)
    if shape != (rows, columns):
        resized = resize_grid(plane.flatten(0, 1)[None, None], (rows, columns), shape)[0, 0]
        plane = resized.reshape(*shape, -1)
    plane = torch.cat([plane, newline.expand(shape[0], 1, -1)], dim=1)
    return torch.cat([tokens[0], plane.flatten(0, 1)])


def _crop(tiling: Tiling, grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first row and column of tokens that the image has in the tiles, and the numbers of both."""
    rows, columns = tiling.rows * grid[0], tiling.columns * grid[1]
    top = left = 0
    if tiling.width * rows > tiling.height * columns:  # black above and below
        top = (rows - tiling.height * columns // tiling.width) // 2
    else:
        left = (columns - tiling.width * rows // tiling.height) // 2
    return (top, left), (rows - 2 * top, columns - 2 * left)


def _shrink(rows: int, columns: int, grid: tuple[int, int], max_tiles: int | None) -> tuple[int, int]:
    """Return the rows and columns of tokens after the resize to those of ``max_tiles`` tiles."""
    if max_tiles is None:
        return rows, columns
    factor = math.sqrt(rows * columns / (max_tiles * grid[0] ** 2))
    if factor <= MAX_EXCESS:
        return rows, columns
    return int(rows // factor), int(columns // factor)
