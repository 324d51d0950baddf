"""The MLP projector of LLaVA-1.5, with the grid resize of HumanOmni's face branch."""

from dataclasses import replace
from typing import Literal

from torch import nn

from omnihuman.nn.grid import halve_grid, halve_layout, resize_grid
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout


class MLPProjector(Projector):
    """Linear, then ``depth - 1`` times GELU and Linear: ``[B T N in_dim]`` -> ``[B T N' out_dim]``.

    Reference: LLaVA-1.5's ``mlp2x_gelu``; HumanOmni's face branch, whose output is resized from 27 x 27 to 14 x 14
    (``get_2dPool``: bilinear, no aligned corners, no antialiasing).
    Differs from the official code, which resizes after the last Linear: the two commute, and resizing first divides the
    cost of that layer by four.

    Args:
        in_dim: width of the input stream.
        out_dim: width of the language model.
        depth: number of Linears.
        resize: ``ceil_half`` halves the grid, rounded up; ``null`` keeps it.

    >>> projector = MLPProjector(in_dim=8, out_dim=32, resize="ceil_half")
    >>> frames = Features.of(torch.zeros(2, 3, 49, 8), torch.ones(2, 3, dtype=torch.bool), grid=(7, 7))
    >>> projector(frames).tokens.shape
    torch.Size([2, 3, 16, 32])
    """

    def __init__(self, in_dim: int, out_dim: int, depth: int = 2, resize: Literal["ceil_half"] | None = None) -> None:
        super().__init__(in_dim, out_dim)
        if depth < 1:
            raise ValueError(f"mlp: depth={depth}; expected a number of Linears of 1 or more.")
        self.resize = resize
        layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(out_dim, out_dim)]
        self.layers = nn.Sequential(*layers)

    def layout(self, layout: Layout) -> Layout:
        return halve_layout(layout, "mlp") if self.resize else layout

    def forward(self, features: Features) -> Features:
        *first, last = self.layers
        tokens = features.tokens
        for layer in first:
            tokens = layer(tokens)
        if self.resize is None:
            return replace(features, tokens=last(tokens), levels=())
        grid = halve_grid(features.grid, "mlp")
        assert features.grid is not None
        return Features.of(last(resize_grid(tokens, features.grid, grid)), features.mask.any(dim=2), grid)
