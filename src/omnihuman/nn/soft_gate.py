"""Soft gate: features -> weights that sum to one."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


class SoftGate(nn.Module):
    """Features ``[... in_dim]`` -> softmax weights ``[... count]``.

    Reference: FaVChat v1, Eq. 3: a gating network on the input features; soft, no top-k and no balancing loss.

    Args:
        in_dim: width of the features.
        count: number of choices.
        hidden: width of a hidden layer with GELU; ``None`` for a single Linear.

    >>> SoftGate(8, 3)(torch.zeros(2, 8)).sum(dim=-1).detach().round()
    tensor([1., 1.])
    """

    def __init__(self, in_dim: int, count: int, hidden: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden:
            layers += [nn.Linear(in_dim, hidden), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or in_dim, count))

    def forward(
        self, features: Float[Tensor, "*B D"], valid: Bool[Tensor, "*B K"] | None = None
    ) -> Float[Tensor, "*B K"]:
        """Return the weights; an invalid choice has weight 0, and without a valid choice all weights are 0."""
        logits: Tensor = self.layers(features)
        if valid is None:
            return logits.softmax(dim=-1)
        has_choice = valid.any(dim=-1, keepdim=True)
        # without a valid choice nothing is masked: a softmax over -inf alone is nan
        return logits.masked_fill(~valid & has_choice, float("-inf")).softmax(dim=-1) * has_choice
