"""A learned vector for every place in time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class FrameEmbedding(Fusion):
    """A stream ``[B T N D]`` -> the same, a vector added to all tokens of each moment that tells which one it is.

    Reference: Omni-Emotion §3, the learnable parameter of each frame, read as added; read as a token after each frame
    it is ``newline`` with ``mode: frame``. The vectors start at zero: earlier stages have trained the language model
    without them, and a start that changes nothing keeps what it has learned.

    Args:
        dims: width of every stream.
        inputs: the one stream that is told.
        output: name of the result.
        condition: none is used.
        num_frames: moments that have a vector.

    Raises:
        ValueError: there is more than one input, or more moments than vectors.

    >>> embed = FrameEmbedding({"video": 8}, ["video"], "video", num_frames=8)
    >>> embed({"video": Features.of(torch.ones(1, 8, 4, 8), torch.ones(1, 8).bool())})["video"].tokens.shape
    torch.Size([1, 8, 4, 8])
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        num_frames: int = 8,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        if len(self.inputs) != 1:
            raise ValueError(f"frame_embedding tells one stream, got {list(self.inputs)}: give each its own.")
        self.frames = nn.Parameter(torch.zeros(num_frames, self.out_dim))

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        self._check(layouts[0].moments)
        return layouts[0]._replace(levels=())

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, real = streams[0].tokens, streams[0].mask.any(dim=2).any(dim=0)
        count, known = len(real), len(self.frames)
        if count > known and real[known:].any():  # padding needs no vector
            self._check(int(real.nonzero().max()) + 1)
        vectors = F.pad(self.frames, (0, 0, 0, max(0, count - known)))[:count]
        return replace(streams[0], tokens=tokens + vectors[:, None].to(tokens.dtype), levels=())

    def _check(self, moments: int) -> None:
        if moments > len(self.frames):
            raise ValueError(
                f"frame_embedding of {self.inputs[0]!r} has num_frames={len(self.frames)}, got {moments} moments: "
                "show fewer frames, or raise num_frames and train it anew."
            )
