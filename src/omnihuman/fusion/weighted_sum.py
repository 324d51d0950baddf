"""A sum of streams whose weights depend on no input."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.streams import require_equal_layouts, weighted_sum
from omnihuman.types import Features, Layout


class WeightedSum(Fusion):
    """Streams of one layout ``[B T N D]`` -> their weighted sum.

    Where a sample has no valid tokens of a stream, the other streams share its weight.

    Reference: the baseline of HumanOmni's gate and of FaVChat's MoE adapter.

    Args:
        dims: width of every stream.
        inputs: streams to sum, in order.
        output: name of the sum.
        condition: ignored.
        weights: one weight per stream, above 0; ``null`` for equal ones that sum to 1.
        learned: the weights are trainable; they start as above and keep their sum.

    Raises:
        ValueError: the weights are not as many as the streams or not above 0, or the streams differ in layout.

    >>> add = WeightedSum({"video": 8, "face": 8}, ["video", "face"], "video", weights=[0.75, 0.25])
    >>> one = Features.of(torch.ones(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))
    >>> add({"video": one, "face": one})["video"].tokens.unique()
    tensor([1.])
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        weights: Sequence[float] | None = None,
        learned: bool = False,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        num_inputs = len(self.inputs)
        if weights is None:
            weights = [1 / num_inputs] * num_inputs
        self.initial_weights, self.learned = list(weights), learned
        if len(self.initial_weights) != num_inputs or min(self.initial_weights) <= 0:
            raise ValueError(f"weighted_sum: weights={list(weights)}; expected one above 0 for each of {list(inputs)}.")
        if learned:
            self.logits = nn.Parameter(torch.tensor(self.initial_weights).log())

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return require_equal_layouts(layouts, self.inputs, "weighted_sum")

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        weights = streams[0].tokens.new_tensor(self.initial_weights)
        if self.learned:
            weights = self.logits.softmax(dim=0) * sum(self.initial_weights)
        merged, self.weights = weighted_sum(streams, weights)
        return merged
