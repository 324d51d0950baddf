"""Streams interleaved frame by frame."""

from collections.abc import Sequence

from omnihuman.fusion.base import Fusion
from omnihuman.nn.streams import one_length, side_by_side
from omnihuman.types import Features, Layout


class FrameConcat(Fusion):
    """Streams ``[B T N D]`` of one T -> ``[B T N1+N2+... D]``: of every moment the tokens of all, V1 F1 V2 F2 ...

    Reference: Omni-Emotion §3, fusion (a).

    Raises:
        ValueError: the streams differ in moments.

    >>> join = FrameConcat({"video": 8, "face": 8}, ["video", "face"], "video")
    >>> video, face = (Features.of(torch.ones(1, 8, n, 8), torch.ones(1, 8).bool()) for n in (196, 49))
    >>> join({"video": video, "face": face})["video"].tokens.shape
    torch.Size([1, 8, 245, 8])
    """

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        moments = one_length(layouts, self.inputs, "frame_concat")
        return Layout(moments, sum(layout.tokens for layout in layouts))

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        return side_by_side(streams)
