"""Resizing of tokens on a grid."""

import math

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from omnihuman.types import Layout


def halve_grid(grid: tuple[int, int] | None, part: str) -> tuple[int, int]:
    """Return half the rows and columns, rounded up.

    Raises:
        ValueError: the tokens have no grid.
    """
    if grid is None:
        raise ValueError(f"{part}: resize=ceil_half needs tokens on a grid, but its stream has none; set resize=null.")
    return math.ceil(grid[0] / 2), math.ceil(grid[1] / 2)


def halve_layout(layout: Layout, part: str) -> Layout:
    """Return the layout with half its grid; see ``halve_grid``."""
    rows, columns = halve_grid(layout.grid, part)
    return Layout(layout.time_steps, rows * columns, (rows, columns))


def resize_grid(
    tokens: Float[Tensor, "B T N D"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "B T M D"]:
    """Resize the tokens of each time step to another grid: bilinear, no aligned corners, no antialiasing.

    Reference: LLaVA-OneVision's and HumanOmni's ``get_2dPool``.

    >>> resize_grid(torch.zeros(2, 3, 49, 8), (7, 7), (4, 4)).shape
    torch.Size([2, 3, 16, 8])
    """
    maps = rearrange(tokens, "B T (H W) D -> (B T) D H W", H=grid[0])
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=False)
    return rearrange(maps, "(B T) D H W -> B T (H W) D", B=len(tokens))
