"""A learned token at the end of a stream, a frame, or a row of a grid, and of an image's tiles."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omnihuman.fusion.base import Fusion
from omnihuman.nn.grid import halve_grid, halve_layout, resize_grid
from omnihuman.nn.tiles import arrange_tokens, count_tokens
from omnihuman.types import Features, Layout, Tiling


class Newline(Fusion):
    """A stream ``[B T N D]`` -> the same with a learned token after the whole, each time step, or each row of its grid.

    ``one``: ``[B 1 T*N+1 D]``; ``frame``: ``[B T N+1 D]``; ``grid`` of H rows and W columns: ``[B T H*(W+1) D]``;
    ``none``: unchanged. The token is valid where any token before it is. An image that is cut into tiles
    (``data.tiles``) becomes its base and its rows, each row with the token at its end, in every mode but ``none``:
    ``[B 1 L D]``, see ``nn.tiles``.

    Reference: LLaVA-NeXT ``llava_arch.py``, ``mm_newline_position``: LLaVA-OneVision's videos have ``one``, LLaVA-Video
    ``grid``; ``frame`` is one reading of Omni-Emotion's learnable parameter of each frame (§3).

    Args:
        dims: width of every stream.
        inputs: one stream.
        output: name of the result.
        condition: ignored.
        mode: ``one``, ``frame``, ``grid`` or ``none``.
        resize: ``ceil_half`` halves the grid of frames first, rounded up, and not that of tiles; ``null`` keeps it.
        max_tiles: tokens of an image in more tiles are resized to those of so many; ``null``: never.

    Raises:
        ValueError: there is more than one input, no grid in mode ``grid`` or to resize, or tiles in mode ``none``.

    >>> video = Features.of(torch.ones(1, 8, 196, 8), torch.ones(1, 8, dtype=torch.bool), grid=(14, 14))
    >>> for mode in ("one", "frame", "grid"):
    ...     print(Newline({"video": 8}, ["video"], "video", mode=mode)({"video": video})["video"].tokens.shape)
    torch.Size([1, 1, 1569, 8])
    torch.Size([1, 8, 197, 8])
    torch.Size([1, 8, 210, 8])
    """

    max_inputs = 1
    reads_tiles = True

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        mode: Literal["one", "frame", "grid", "none"] = "one",
        resize: Literal["ceil_half"] | None = None,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        if max_tiles is not None and max_tiles < 1:
            raise ValueError(f"newline: max_tiles={max_tiles}; expected 1 or more, or null.")
        self.mode, self.resize, self.max_tiles = mode, resize, max_tiles
        if mode != "none":
            self.newline = nn.Parameter(torch.randn(self.out_dim) / self.out_dim**0.5)

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        layout = layouts[0]
        if layout.tiling is not None:
            if self.mode == "none":
                raise ValueError("newline: mode=none has no token for the rows of tiles: leave data.tiles out.")
            return Layout(1, count_tokens(layout.tiling, self._check_grid(layout.grid), self.max_tiles))
        if self.resize is not None:
            layout = halve_layout(layout, f"newline of {self.inputs[0]}")
        time_steps, num_tokens, grid = layout[:3]
        if self.mode == "none":
            return Layout(time_steps, num_tokens, grid)
        if self.mode == "one":
            return Layout(1, time_steps * num_tokens + 1)
        if self.mode == "frame":
            return Layout(time_steps, num_tokens + 1)
        return Layout(time_steps, num_tokens + self._check_grid(grid)[0])

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        stream = streams[0]
        if stream.tilings is None:
            return self._merge_frames(stream)
        rows, grid = list[Tensor](), self._check_grid(stream.grid)
        for index, numbers in enumerate(stream.tilings.tolist()):
            tokens, tiling = stream.tokens[index], Tiling(*numbers)
            if tiling.height:
                rows.append(arrange_tokens(tokens, tiling, grid, self.newline, self.max_tiles))
            else:
                tokens, valid = self._merge_frames(Features(tokens[None], stream.mask[index, None], grid)).flat()
                rows.append(tokens[valid])
        padded = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=padded.device)
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        return Features(padded[:, None], mask[:, None])

    def _merge_frames(self, stream: Features) -> Features:
        """Return the frames of videos with their newlines."""
        if self.resize is not None:
            before, after = self._check_grid(stream.grid), halve_grid(stream.grid, "newline")
            stream = Features.of(resize_grid(stream.tokens, before, after), stream.mask.any(dim=2), after)
        tokens, mask, grid = stream.tokens, stream.mask, stream.grid
        if self.mode == "none":
            return Features(tokens, mask, grid)
        if self.mode == "one":
            tokens, mask = stream.flat()
            tokens, mask = tokens[:, None], mask[:, None]
        if self.mode != "grid":
            return Features(*self._append(tokens, mask))
        rows, _ = self._check_grid(grid)
        tokens = rearrange(tokens, "B T (H W) D -> B T H W D", H=rows)
        tokens, mask = self._append(tokens, rearrange(mask, "B T (H W) -> B T H W", H=rows))
        return Features(tokens.flatten(2, 3), mask.flatten(2, 3))

    def _append(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Append the learned token on the last axis of tokens, valid where any of the others is."""
        newline = self.newline.to(tokens.dtype).expand(*tokens.shape[:-2], 1, -1)
        return torch.cat([tokens, newline], dim=-2), torch.cat([mask, mask.any(dim=-1, keepdim=True)], dim=-1)

    def _check_grid(self, grid: tuple[int, int] | None) -> tuple[int, int]:
        if grid is None:
            raise ValueError(
                f"newline ends the rows of a grid, but its input {self.inputs[0]!r} has none: set mode=frame, or "
                "choose a projector that keeps the grid."
            )
        return grid
