"""A learned token that ends a stream, a frame, or a row of a grid."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class Newline(Fusion):
    """A stream ``[B T N D]`` -> the same with one learned vector after the whole, each moment, or each row of its grid.

    ``one``: ``[B 1 T*N+1 D]``; ``frame``: ``[B T N+1 D]``; ``grid`` of H rows and W columns: ``[B T H*(W+1) D]``;
    ``none``: as it was. What is hidden gets none.

    Reference: LLaVA-NeXT ``llava_arch.py``, ``mm_newline_position``: LLaVA-OneVision's videos have ``one``, LLaVA-Video
    ``grid``; ``frame`` is one reading of Omni-Emotion's learnable parameter of each frame (§3).

    Args:
        dims: width of every stream.
        inputs: the one stream.
        output: name of the result.
        condition: none is used.
        mode: ``one``, ``frame``, ``grid`` or ``none``.

    Raises:
        ValueError: there is more than one input, or no grid where its rows are to end.

    >>> video = Features.of(torch.ones(1, 8, 196, 8), torch.ones(1, 8, dtype=torch.bool), grid=(14, 14))
    >>> for mode in ("one", "frame", "grid"):
    ...     print(Newline({"video": 8}, ["video"], "video", mode=mode)({"video": video})["video"].tokens.shape)
    torch.Size([1, 1, 1569, 8])
    torch.Size([1, 8, 197, 8])
    torch.Size([1, 8, 210, 8])
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        mode: Literal["one", "frame", "grid", "none"] = "one",
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        if len(self.inputs) != 1:
            raise ValueError(f"newline ends one stream, got {list(self.inputs)}: join them first.")
        self.mode = mode
        if mode != "none":
            self.newline = nn.Parameter(torch.randn(self.out_dim) / self.out_dim**0.5)

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        moments, tokens, grid, _ = layouts[0]
        if self.mode == "none":
            return Layout(moments, tokens, grid)
        if self.mode == "one":
            return Layout(1, moments * tokens + 1)
        return Layout(moments, tokens + (1 if self.mode == "frame" else self._rows(grid)))

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, mask, grid = streams[0].tokens, streams[0].mask, streams[0].grid
        if self.mode == "none":
            return Features(tokens, mask, grid)
        if self.mode == "one":
            tokens, mask = (x[:, None] for x in streams[0].flat())
        if self.mode != "grid":
            return Features(*self._end(tokens, mask))
        rows = self._rows(grid)
        tokens = rearrange(tokens, "B T (H W) D -> B T H W D", H=rows)
        tokens, mask = self._end(tokens, rearrange(mask, "B T (H W) -> B T H W", H=rows))
        return Features(tokens.flatten(2, 3), mask.flatten(2, 3))

    def _end(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One more on the last axis of tokens, real where any of the others is."""
        newline = self.newline.to(tokens.dtype).expand(*tokens.shape[:-2], 1, -1)
        return torch.cat([tokens, newline], dim=-2), torch.cat([mask, mask.any(dim=-1, keepdim=True)], dim=-1)

    def _rows(self, grid: tuple[int, int] | None) -> int:
        if grid is None:
            raise ValueError(
                f"newline ends the rows of a grid, but the stream {self.inputs[0]!r} has none: set mode=frame."
            )
        return grid[0]
