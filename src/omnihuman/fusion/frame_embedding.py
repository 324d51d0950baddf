"""A learned embedding of the time step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class FrameEmbedding(Fusion):
    """A stream ``[B T N D]`` -> the same, with one learned vector per time step added to its tokens.

    Reference: Omni-Emotion §3, the learnable parameter of each frame, here an added vector; as a token after each frame
    it is ``newline`` with ``mode: frame``. The vectors start at zero: earlier stages have trained the language model
    without them, and zeros change nothing at first.

    Args:
        dims: width of every stream.
        inputs: one stream.
        output: name of the result.
        condition: ignored.
        num_frames: time steps that have a vector.

    Raises:
        ValueError: there is more than one input, or more time steps than vectors.

    >>> embed = FrameEmbedding({"video": 8}, ["video"], "video", num_frames=8)
    >>> embed({"video": Features.of(torch.ones(1, 8, 4, 8), torch.ones(1, 8).bool())})["video"].tokens.shape
    torch.Size([1, 8, 4, 8])
    """

    max_inputs = 1

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        num_frames: int = 8,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        self.frames = nn.Parameter(torch.zeros(num_frames, self.out_dim))

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        self._check_time_steps(layouts[0].time_steps)
        return layouts[0]._replace(levels=())

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, valid = streams[0].tokens, streams[0].mask.any(dim=2).any(dim=0)
        time_steps, num_frames = len(valid), len(self.frames)
        if time_steps > num_frames and valid[num_frames:].any():  # padding needs no vector
            self._check_time_steps(int(valid.nonzero().max()) + 1)
        vectors = F.pad(self.frames, (0, 0, 0, max(0, time_steps - num_frames)))[:time_steps]
        return replace(streams[0], tokens=tokens + vectors[:, None].to(tokens.dtype), levels=())

    def _check_time_steps(self, time_steps: int) -> None:
        if time_steps > len(self.frames):
            raise ValueError(
                f"frame_embedding of {self.inputs[0]!r} has num_frames={len(self.frames)}, got {time_steps} time "
                "steps: use fewer frames, or raise num_frames and train it again."
            )
