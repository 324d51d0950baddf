"""A learned token at the end of a stream, a frame, or a row of a grid."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class Newline(Fusion):
    """A stream ``[B T N D]`` -> the same with a learned token after the whole, each time step, or each row of its grid.

    ``one``: ``[B 1 T*N+1 D]``; ``frame``: ``[B T N+1 D]``; ``grid`` of H rows and W columns: ``[B T H*(W+1) D]``;
    ``none``: unchanged. The token is valid where any token before it is.

    Reference: LLaVA-NeXT ``llava_arch.py``, ``mm_newline_position``: LLaVA-OneVision's videos have ``one``, LLaVA-Video
    ``grid``; ``frame`` is one reading of Omni-Emotion's learnable parameter of each frame (§3).

    Args:
        dims: width of every stream.
        inputs: one stream.
        output: name of the result.
        condition: ignored.
        mode: ``one``, ``frame``, ``grid`` or ``none``.

    Raises:
        ValueError: there is more than one input, or no grid in mode ``grid``.

    >>> video = Features.of(torch.ones(1, 8, 196, 8), torch.ones(1, 8, dtype=torch.bool), grid=(14, 14))
    >>> for mode in ("one", "frame", "grid"):
    ...     print(Newline({"video": 8}, ["video"], "video", mode=mode)({"video": video})["video"].tokens.shape)
    torch.Size([1, 1, 1569, 8])
    torch.Size([1, 8, 197, 8])
    torch.Size([1, 8, 210, 8])
    """

    max_inputs = 1

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        mode: Literal["one", "frame", "grid", "none"] = "one",
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        self.mode = mode
        if mode != "none":
            self.newline = nn.Parameter(torch.randn(self.out_dim) / self.out_dim**0.5)

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        time_steps, num_tokens, grid, _ = layouts[0]
        if self.mode == "none":
            return Layout(time_steps, num_tokens, grid)
        if self.mode == "one":
            return Layout(1, time_steps * num_tokens + 1)
        if self.mode == "frame":
            return Layout(time_steps, num_tokens + 1)
        return Layout(time_steps, num_tokens + self._count_rows(grid))

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, mask, grid = streams[0].tokens, streams[0].mask, streams[0].grid
        if self.mode == "none":
            return Features(tokens, mask, grid)
        if self.mode == "one":
            tokens, mask = streams[0].flat()
            tokens, mask = tokens[:, None], mask[:, None]
        if self.mode != "grid":
            return Features(*self._append(tokens, mask))
        rows = self._count_rows(grid)
        tokens = rearrange(tokens, "B T (H W) D -> B T H W D", H=rows)
        tokens, mask = self._append(tokens, rearrange(mask, "B T (H W) -> B T H W", H=rows))
        return Features(tokens.flatten(2, 3), mask.flatten(2, 3))

    def _append(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Append the learned token on the last axis of tokens, valid where any of the others is."""
        newline = self.newline.to(tokens.dtype).expand(*tokens.shape[:-2], 1, -1)
        return torch.cat([tokens, newline], dim=-2), torch.cat([mask, mask.any(dim=-1, keepdim=True)], dim=-1)

    def _count_rows(self, grid: tuple[int, int] | None) -> int:
        if grid is None:
            raise ValueError(
                f"newline ends the rows of a grid, but its input {self.inputs[0]!r} has none: set mode=frame, or "
                "choose a projector that keeps the grid."
            )
        return grid[0]
