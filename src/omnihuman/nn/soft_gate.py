"""A soft choice: features -> weights that add up to one."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


class SoftGate(nn.Module):
    """Features ``[... in_dim]`` -> softmax weights ``[... count]``.

    Reference: FaVChat v1, Eq. 3: a gating net on the input features; soft, no top-k and no balancing loss.

    Args:
        in_dim: width of what it sees.
        count: how many choices there are.
        hidden: width of a layer with GELU between; ``None`` for one Linear alone.

    >>> SoftGate(8, 3)(torch.zeros(2, 8)).sum(dim=-1).detach().round()
    tensor([1., 1.])
    """

    def __init__(self, in_dim: int, count: int, hidden: int | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *([nn.Linear(in_dim, hidden), nn.GELU()] if hidden else []), nn.Linear(hidden or in_dim, count)
        )

    def forward(self, seen: Float[Tensor, "*B D"], real: Bool[Tensor, "*B K"] | None = None) -> Float[Tensor, "*B K"]:
        """The weights; what is not ``real`` gets none, and where nothing is real, nothing does."""
        logits: Tensor = self.layers(seen)
        if real is None:
            return logits.softmax(dim=-1)
        some = real.any(dim=-1, keepdim=True)
        return logits.masked_fill(~real & some, float("-inf")).softmax(dim=-1) * some
