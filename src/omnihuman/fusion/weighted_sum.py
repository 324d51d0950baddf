"""Streams added up by weights that no input changes."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.streams import one_shape, weighted_sum
from omnihuman.types import Features, Layout


class WeightedSum(Fusion):
    """Streams of one shape ``[B T N D]``, times one weight each, added up; a missing one leaves its weight to others.

    Reference: the baseline of HumanOmni's gate and of FaVChat's MoE adapter.

    Args:
        dims: width of every stream.
        inputs: streams to add, in order.
        output: name of the sum.
        condition: none is used.
        weights: one weight a stream, above 0; ``null`` for equal ones that sum to 1.
        learned: the weights start there and learn, keeping their sum.

    Raises:
        ValueError: the weights are not as many as the streams or not above 0, or the streams differ in shape.

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
        count = len(self.inputs)
        given = [1 / count] * count if weights is None else list(weights)
        if len(given) != count or min(given) <= 0:
            raise ValueError(f"weighted_sum: weights={weights} is not one above 0 for each of {list(inputs)}.")
        self.given, self.learned = given, learned
        if learned:
            self.logits = nn.Parameter(torch.tensor(given).log())

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return one_shape(layouts, self.inputs, "weighted_sum")

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        weights = streams[0].tokens.new_tensor(self.given)
        if self.learned:
            weights = self.logits.softmax(dim=0) * sum(self.given)
        merged, self.weights = weighted_sum(streams, weights)
        return merged
