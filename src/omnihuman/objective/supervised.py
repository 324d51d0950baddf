"""Next-token loss on the answers, the objective of every stage of the three papers."""

from jaxtyping import Float
from torch import Tensor

from omnihuman.objective.base import Objective
from omnihuman.types import Batch, Output


class Supervised(Objective):
    """Minimizes the cross-entropy of the answers' tokens.

    Reference: HumanOmni, Omni-Emotion and FaVChat, all stages.
    """

    def compute_loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        return output.loss
