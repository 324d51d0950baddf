"""HumanOmni's instruction-driven fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.streams import require_equal_layouts
from omnihuman.types import Features, Layout


class InstructionGate(Fusion):
    """Streams of one layout ``[B T N D]`` -> their sum, weighted by the instruction.

    There is one weight per sample and stream; ``weights`` holds those of the last call.

    Reference: paper §2, Eq. 1; official ``humanomni_arch.py``: Linear - GELU - Linear - softmax over [CLS], inputs in
    the order interaction, body, face.

    Args:
        dims: width of every stream.
        inputs: streams to sum, in order.
        output: name of the sum.
        condition: stream whose first token summarises the instruction.
        hidden: width of the hidden layer (official: 3584 at both sizes).
        activation: ``softmax`` (official code) or ``none`` (the paper's Eq. 1 has none).

    Raises:
        ValueError: there is no condition, or the streams differ in layout.

    >>> gate = InstructionGate({"a": 8, "b": 8, "text": 4}, ["a", "b"], "video", "text", hidden=16)
    >>> one = Features.of(torch.ones(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))
    >>> text = Features.of(torch.ones(2, 1, 1, 4), torch.ones(2, 1, dtype=torch.bool))
    >>> gate({"a": one, "b": one, "text": text})["video"].tokens.shape
    torch.Size([2, 3, 4, 8])
    """

    condition_use = "required"

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        hidden: int = 3584,
        activation: Literal["softmax", "none"] = "softmax",
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        assert condition is not None
        self.activation = activation
        self.layers = nn.Sequential(nn.Linear(dims[condition], hidden), nn.GELU(), nn.Linear(hidden, len(self.inputs)))

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return require_equal_layouts(layouts, self.inputs, "gate")

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        assert condition is not None
        self.layout([Layout(s.tokens.shape[1], s.tokens.shape[2], s.grid) for s in streams])
        # zeros in place of a missing instruction: all such samples have the same weights
        summary = condition.tokens[:, 0, 0].masked_fill(~condition.mask[:, 0, :1], 0)
        weights = self.layers(summary)
        if self.activation == "softmax":
            weights = weights.softmax(dim=-1)
        self.weights = weights.detach()
        tokens = torch.zeros_like(streams[0].tokens)
        for stream, weight in zip(streams, weights.unbind(dim=-1), strict=True):
            tokens = tokens + stream.tokens * weight[:, None, None, None].to(stream.tokens.dtype)
        return replace(streams[0], tokens=tokens, levels=())
