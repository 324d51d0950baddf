"""Few tokens of every frame, all tokens of a few."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class SlowFast(Fusion):
    """A stream on a grid ``[B T N D]`` -> ``[B 1 L D]``: every frame pooled, then every fourth frame whole.

    Reference: HumanOmni ``SFDynamicCompressor``: 2 x 2 average pooling of every frame, then the frames
    ``arange(1, T, 4)`` in full (frame 0 where T is 1); fast tokens first. Takes any T, also different ones in a batch,
    where the official code needs exactly ``num_frames``.

    Args:
        dims: width of every stream.
        inputs: the one stream to compress.
        output: name of the result.
        condition: none is used.
        pool: side of the pooling window; an odd grid loses its last row and column.
        every: a full frame every so many; ``null`` for none, which with ``pool=1`` leaves the stream as it is.

    Raises:
        ValueError: there is more than one input, or it has no grid.

    >>> compress = SlowFast({"video": 8}, ["video"], "video")
    >>> video = Features.of(torch.ones(1, 8, 16, 8), torch.ones(1, 8, dtype=torch.bool), grid=(4, 4))
    >>> compress({"video": video})["video"].tokens.shape
    torch.Size([1, 1, 64, 8])
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        pool: int = 2,
        every: int | None = 4,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        if len(self.inputs) != 1:
            raise ValueError(f"slow_fast compresses one stream, got {list(self.inputs)}: join them first.")
        self.pool, self.every = pool, every

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        moments, tokens, grid, _ = layouts[0]
        rows, columns = self._grid(grid)
        fast = moments * (rows // self.pool) * (columns // self.pool)
        return Layout(1, fast + len(self._slow(moments)) * tokens)

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, mask, grid = streams[0].tokens, streams[0].mask.any(dim=2), self._grid(streams[0].grid)
        maps = rearrange(tokens, "B T (H W) D -> (B T) D H W", H=grid[0])
        fast = rearrange(F.avg_pool2d(maps, self.pool), "(B T) D H W -> B T (H W) D", B=len(tokens))
        parts = [_flat(fast, mask)]
        if frames := self._slow(mask.shape[1]):
            slow = mask[:, frames]
            # a sample of one frame shows that one in full, whatever the others of its batch have
            single = mask.sum(dim=1) == 1
            whole = torch.where(single[:, None, None, None], tokens[:, :1], tokens[:, frames])
            slow = torch.where(single[:, None], torch.arange(len(frames), device=mask.device) == 0, slow)
            parts.append(_flat(whole, slow))
        merged, real = (torch.cat(pieces, dim=1)[:, None] for pieces in zip(*parts, strict=True))
        return Features(merged.masked_fill(~real[..., None], 0), real)

    def _slow(self, moments: int) -> list[int]:
        if self.every is None or moments < 1:
            return []
        return list(range(1, moments, self.every)) or [0]

    def _grid(self, grid: tuple[int, int] | None) -> tuple[int, int]:
        if grid is None:
            raise ValueError(f"slow_fast pools a grid, but the stream {self.inputs[0]!r} has none: leave it out.")
        return grid


def _flat(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return rearrange(tokens, "B T N D -> B (T N) D"), mask.repeat_interleave(tokens.shape[2], dim=1)
