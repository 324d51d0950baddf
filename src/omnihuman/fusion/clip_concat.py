"""Concatenation of whole streams."""

from collections.abc import Sequence

import torch

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class ClipConcat(Fusion):
    """Streams ``[B T N D]`` of any T and N -> ``[B 1 L D]``: one whole stream after the other, V1..V8 F1..F8.

    Reference: Omni-Emotion §3, fusion (c), its default and its best.

    >>> join = ClipConcat({"video": 8, "face": 8}, ["video", "face"], "video")
    >>> video, face = (Features.of(torch.ones(1, 8, n, 8), torch.ones(1, 8).bool()) for n in (196, 49))
    >>> join({"video": video, "face": face})["video"].tokens.shape
    torch.Size([1, 1, 1960, 8])
    """

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return Layout(1, sum(layout.num_tokens for layout in layouts))

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        tokens, masks = zip(*(stream.flat() for stream in streams), strict=True)
        return Features(torch.cat(tokens, dim=1)[:, None], torch.cat(masks, dim=1)[:, None])
