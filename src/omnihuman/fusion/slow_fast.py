"""A slow-fast compressor: few tokens of every frame, all tokens of a few."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from omnihuman.fusion.base import Fusion
from omnihuman.mirror import range_like
from omnihuman.types import Features, Layout


class SlowFast(Fusion):
    """A stream on a grid ``[B T N D]`` -> ``[B 1 L D]``: every frame pooled, then every fourth frame in full.

    Reference: HumanOmni ``SFDynamicCompressor``: 2 x 2 average pooling of every frame, then the frames
    ``arange(1, T, 4)`` in full (frame 0 where T is 1); fast tokens first. Any T is possible, also different ones in a
    batch, where the official code needs exactly ``num_frames``.

    Args:
        dims: width of every stream.
        inputs: one stream.
        output: name of the result.
        condition: ignored.
        pool: side of the pooling window; an odd grid loses its last row and column.
        every: distance of the full frames; ``null`` for none, which with ``pool=1`` leaves the stream unchanged.

    Raises:
        ValueError: there is more than one input, or it has no grid.

    >>> compress = SlowFast({"video": 8}, ["video"], "video")
    >>> video = Features.of(torch.ones(1, 8, 16, 8), torch.ones(1, 8, dtype=torch.bool), grid=(4, 4))
    >>> compress({"video": video})["video"].tokens.shape
    torch.Size([1, 1, 64, 8])
    """

    max_inputs = 1

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
        self.pool, self.every = pool, every

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        stream = layouts[0]
        rows, columns = self._require_grid(stream.grid)
        num_fast = stream.time_steps * (rows // self.pool) * (columns // self.pool)
        return Layout(1, num_fast + len(self._slow_frames(stream.time_steps)) * stream.tokens_per_step)

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, mask, grid = streams[0].tokens, streams[0].mask.any(dim=2), self._require_grid(streams[0].grid)
        maps = rearrange(tokens, "B T (H W) D -> (B T) D H W", H=grid[0])
        fast = rearrange(F.avg_pool2d(maps, self.pool), "(B T) D H W -> B T (H W) D", B=len(tokens))
        parts = [_flatten(fast, mask)]
        if frames := self._slow_frames(mask.shape[1]):
            parts.append(_flatten(*_select_slow(tokens, mask, frames)))
        merged = torch.cat([part for part, _ in parts], dim=1)[:, None]
        valid = torch.cat([part for _, part in parts], dim=1)[:, None]
        return Features(merged.masked_fill(~valid[..., None], 0), valid)

    def _slow_frames(self, time_steps: int) -> list[int]:
        """Return the indices of the full frames."""
        if self.every is None or time_steps < 1:
            return []
        return list(range(1, time_steps, self.every)) or [0]

    def _require_grid(self, grid: tuple[int, int] | None) -> tuple[int, int]:
        if grid is None:
            raise ValueError(
                f"slow_fast pools a grid, but its input {self.inputs[0]!r} has none: remove slow_fast, or choose a "
                "projector that keeps the grid."
            )
        return grid


def _select_slow(tokens: Tensor, mask: Tensor, frames: list[int]) -> tuple[Tensor, Tensor]:
    """Return the full frames; of a sample with a single frame that one, whatever T the rest of the batch has."""
    is_single = mask.sum(dim=1) == 1
    slow = torch.where(is_single[:, None, None, None], tokens[:, :1], tokens[:, frames])
    is_first = range_like(len(frames), mask) == 0
    return slow, torch.where(is_single[:, None], is_first, mask[:, frames])


def _flatten(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return rearrange(tokens, "B T N D -> B (T N) D"), mask.repeat_interleave(tokens.shape[2], dim=1)
