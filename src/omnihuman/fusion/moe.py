"""FaVChat's MoE adapter: a gate over streams."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.soft_gate import SoftGate
from omnihuman.nn.streams import mean_pool, pad_to_longest, require_equal_layouts, weighted_sum
from omnihuman.types import Features, Layout


class MoE(Fusion):
    """Streams of one layout ``[B T N D]`` -> their sum, weighted by a gate that reads all of them.

    ``weights`` holds the weights of the last call. Where a sample has no valid tokens of a stream, the other streams
    share its weight.

    Reference: FaVChat v1, Eq. 3, E = MoE(w1 E_general, w2 E_facial); its ablation without MoE is ``gate: learned``.
    The paper leaves the gate's input open: here the mean of each stream's tokens.

    Args:
        dims: width of every stream.
        inputs: streams to sum, in order.
        output: name of the sum.
        condition: a stream whose mean the gate reads as well, such as the instruction.
        gate: ``soft``, a softmax per sample; ``learned``, one softmax for all samples, without any input.
        per_token: a softmax per token, over that token of every stream.
        hidden: width of the hidden layer of the soft gate; ``null`` for one Linear alone.

    Raises:
        ValueError: the streams differ in layout, or a learned gate has an option of a soft one.

    >>> moe = MoE({"video": 8, "face": 8}, ["video", "face"], "video")
    >>> one = Features.of(torch.ones(2, 1, 96, 8), torch.ones(2, 1, dtype=torch.bool))
    >>> moe({"video": one, "face": one})["video"].tokens.shape, moe.weights.shape
    (torch.Size([2, 1, 96, 8]), torch.Size([2, 2]))
    """

    condition_use = "optional"

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
        num_inputs, self.per_token = len(self.inputs), per_token
        if gate == "learned" and (condition or per_token):
            raise ValueError(
                f"moe: a learned gate over {list(inputs)} has no input, got condition={condition} and "
                f"per_token={per_token}: set gate=soft, or remove these."
            )
        self.logits = nn.Parameter(torch.zeros(num_inputs)) if gate == "learned" else None
        gate_dim = num_inputs * self.out_dim
        if condition is not None:
            gate_dim += dims[condition]
        self.gate = SoftGate(gate_dim, num_inputs, hidden) if gate == "soft" else None

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return require_equal_layouts(layouts, self.inputs, "moe")

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        if self.logits is not None:
            weights = self.logits.softmax(dim=0)
        else:
            weights = self._compute_weights(pad_to_longest(streams), condition)
        merged, self.weights = weighted_sum(streams, weights)
        return merged

    def _compute_weights(self, streams: list[Features], condition: Features | None) -> Tensor:
        """Return the soft gate's weights, ``[B 1 1 K]`` or per token ``[B T N K]``."""
        valid = torch.stack([stream.mask for stream in streams], dim=-1)
        if self.per_token:
            inputs = [stream.tokens.masked_fill(~stream.mask[..., None], 0) for stream in streams]
        else:
            inputs = [mean_pool(stream)[:, None, None] for stream in streams]
            valid = valid.flatten(1, 2).any(dim=1)[:, None, None]
        if condition is not None:
            inputs.append(mean_pool(condition)[:, None, None].expand(*inputs[0].shape[:3], -1))
        assert self.gate is not None
        weights: Tensor = self.gate(torch.cat(inputs, dim=-1), valid)
        return weights
