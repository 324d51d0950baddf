"""FaVChat's MoE adapter: streams weighed by what they show."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.soft_gate import SoftGate
from omnihuman.nn.streams import one_shape, pooled, to_longest, weighted_sum
from omnihuman.types import Features, Layout


class MoE(Fusion):
    """Streams of one shape ``[B T N D]``, weighed by a gate that sees them all, and added up.

    The last call's weights stay in ``weights``. A sample without one of the streams gives its weight to the others.

    Reference: FaVChat v1, Eq. 3, E = MoE(w1 E_general, w2 E_facial); its ablation without MoE is ``gate: learned``.
    What the gate sees is not given: here the mean of each stream's tokens.

    Args:
        dims: width of every stream.
        inputs: streams to weigh, in order.
        output: name of the sum.
        condition: a stream whose mean the gate sees as well, such as the instruction.
        gate: ``soft``, one softmax a sample; ``learned``, one for all samples, which sees nothing.
        per_token: a softmax for each token of its own, which sees that token of every stream.
        hidden: width inside the soft gate; ``null`` for one Linear alone.

    Raises:
        ValueError: the streams differ in shape, or what only a soft gate has is asked of a learned one.

    >>> moe = MoE({"video": 8, "face": 8}, ["video", "face"], "video")
    >>> one = Features.of(torch.ones(2, 1, 96, 8), torch.ones(2, 1, dtype=torch.bool))
    >>> moe({"video": one, "face": one})["video"].tokens.shape, moe.weights.shape
    (torch.Size([2, 1, 96, 8]), torch.Size([2, 2]))
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        gate: Literal["soft", "learned"] = "soft",
        per_token: bool = False,
        hidden: int | None = None,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        count, self.per_token = len(self.inputs), per_token
        if gate == "learned" and (condition or per_token):
            raise ValueError(
                f"moe: a learned gate sees nothing, but condition={condition} and per_token={per_token}: set gate=soft."
            )
        self.logits = nn.Parameter(torch.zeros(count)) if gate == "learned" else None
        seen = count * self.out_dim + (dims[condition] if condition else 0)
        self.gate = SoftGate(seen, count, hidden) if gate == "soft" else None

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return one_shape(layouts, self.inputs, "moe")

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        weights = self._see(to_longest(streams), condition) if self.logits is None else self.logits.softmax(dim=0)
        merged, self.weights = weighted_sum(streams, weights)
        return merged

    def _see(self, streams: list[Features], condition: Features | None) -> Tensor:
        """Weights ``[B 1 1 K]`` or ``[B T N K]`` of what the streams show."""
        real = torch.stack([stream.mask for stream in streams], dim=-1)
        if self.per_token:
            seen = [stream.tokens.masked_fill(~stream.mask[..., None], 0) for stream in streams]
        else:
            seen = [pooled(stream)[:, None, None] for stream in streams]
            real = real.flatten(1, 2).any(dim=1)[:, None, None]
        if condition is not None:
            seen.append(pooled(condition)[:, None, None].expand(*seen[0].shape[:3], -1))
        assert self.gate is not None
        weights: Tensor = self.gate(torch.cat(seen, dim=-1), real)
        return weights
