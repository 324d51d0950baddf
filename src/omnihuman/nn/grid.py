"""Tokens that lie on a grid, made fewer."""

import math

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from omnihuman.types import Layout


def half_grid(grid: tuple[int, int] | None, reader: str) -> tuple[int, int]:
    """Half the rows and columns, rounded up.

    Raises:
        ValueError: the tokens lie on no grid.
    """
    if grid is None:
        raise ValueError(f"{reader} halves a grid, but the stream it reads has none: set its resize=null.")
    return math.ceil(grid[0] / 2), math.ceil(grid[1] / 2)


def half_layout(layout: Layout, reader: str) -> Layout:
    """A layout whose grid is halved."""
    rows, columns = half_grid(layout.grid, reader)
    return Layout(layout.moments, rows * columns, (rows, columns))


def resize_grid(
    tokens: Float[Tensor, "B T N D"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "B T M D"]:
    """Tokens of each moment on a grid of another size: bilinear, no aligned corners, no antialiasing.

    Reference: LLaVA-OneVision's and HumanOmni's ``get_2dPool``.

    >>> resize_grid(torch.zeros(2, 3, 49, 8), (7, 7), (4, 4)).shape
    torch.Size([2, 3, 16, 8])
    """
    maps = rearrange(tokens, "B T (H W) D -> (B T) D H W", H=grid[0])
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=False)
    return rearrange(maps, "(B T) D H W -> B T (H W) D", B=len(tokens))
