"""HumanOmni's instruction-driven fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from omnihuman.fusion.base import Fusion
from omnihuman.types import Features, Layout


class InstructionGate(Fusion):
    """Streams of one shape ``[B T N D]``, weighed by what the instruction asks for, and added up.

    One weight a sample and stream; the last call's weights stay in ``weights``.

    Reference: paper §2, Eq. 1; official ``humanomni_arch.py``: Linear - GELU - Linear - softmax over [CLS], inputs in
    the order interaction, body, face.

    Args:
        dims: width of every stream.
        inputs: streams to weigh, in order.
        output: name of the sum.
        condition: stream whose first token summarises the instruction.
        hidden: width inside the gate (official: 3584 at both sizes).
        activation: ``softmax`` (official code) or ``none`` (the paper's Eq. 1 names none).

    Raises:
        ValueError: there is no condition, or the streams differ in shape.

    >>> gate = InstructionGate({"a": 8, "b": 8, "text": 4}, ["a", "b"], "video", "text", hidden=16)
    >>> one = Features.of(torch.ones(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))
    >>> text = Features.of(torch.ones(2, 1, 1, 4), torch.ones(2, 1, dtype=torch.bool))
    >>> gate({"a": one, "b": one, "text": text})["video"].tokens.shape
    torch.Size([2, 3, 4, 8])
    """

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
        if condition is None:
            raise ValueError(f"gate weighs {list(inputs)} by an instruction: name its stream as `condition`.")
        self.activation = activation
        self.layers = nn.Sequential(nn.Linear(dims[condition], hidden), nn.GELU(), nn.Linear(hidden, len(self.inputs)))

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        if len(set(layouts)) > 1:
            named = dict(zip(self.inputs, layouts, strict=True))
            raise ValueError(f"gate adds streams of one shape, got {named}: choose projectors that keep them aligned.")
        return layouts[0]

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        assert condition is not None
        self.layout([Layout(s.tokens.shape[1], s.tokens.shape[2], s.grid) for s in streams])
        # without an instruction nothing steers: the same weights for all such samples
        weights = self.layers(condition.tokens[:, 0, 0].masked_fill(~condition.mask[:, 0, :1], 0))
        if self.activation == "softmax":
            weights = weights.softmax(dim=-1)
        self.weights = weights.detach()
        merged = sum(
            stream.tokens * weights[:, k, None, None, None].to(stream.tokens.dtype) for k, stream in enumerate(streams)
        )
        assert isinstance(merged, torch.Tensor)
        return replace(streams[0], tokens=merged)
