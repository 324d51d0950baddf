"""Concatenation of streams, frame by frame."""

from collections.abc import Sequence

from omnihuman.fusion.base import Fusion
from omnihuman.nn.streams import concat_tokens, require_equal_time_steps
from omnihuman.types import Features, Layout


class FrameConcat(Fusion):
    """Streams ``[B T N D]`` of one T -> ``[B T N1+N2+... D]``: the tokens of all streams per time step, V1 F1 V2 F2 ...

    Reference: Omni-Emotion §3, fusion (a).

    Raises:
        ValueError: the streams differ in time steps.

    >>> join = FrameConcat({"video": 8, "face": 8}, ["video", "face"], "video")
    >>> video, face = (Features.of(torch.ones(1, 8, n, 8), torch.ones(1, 8).bool()) for n in (196, 49))
    >>> join({"video": video, "face": face})["video"].tokens.shape
    torch.Size([1, 8, 245, 8])
    """

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        time_steps = require_equal_time_steps(layouts, self.inputs, "frame_concat")
        return Layout(time_steps, sum(layout.tokens_per_step for layout in layouts))

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        return concat_tokens(streams)
