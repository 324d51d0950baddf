"""Projector of one Linear."""

from dataclasses import replace
from typing import Literal

from torch import nn

from omnihuman.nn.grid import halve_grid, halve_layout, resize_grid
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout


class LinearProjector(Projector):
    """One Linear: ``[B T N in_dim]`` -> ``[B T N' out_dim]``.

    Args:
        in_dim: width of the input stream.
        out_dim: width of the language model.
        resize: ``ceil_half`` halves the grid bilinearly, rounded up; ``null`` keeps it.

    >>> projector = LinearProjector(in_dim=8, out_dim=32)
    >>> projector(Features.of(torch.zeros(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))).tokens.shape
    torch.Size([2, 3, 4, 32])
    """

    def __init__(self, in_dim: int, out_dim: int, resize: Literal["ceil_half"] | None = None) -> None:
        super().__init__(in_dim, out_dim)
        self.resize = resize
        self.linear = nn.Linear(in_dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        return halve_layout(layout, "linear") if self.resize else layout

    def forward(self, features: Features) -> Features:
        if self.resize is None:
            return replace(features, tokens=self.linear(features.tokens), levels=())
        grid = halve_grid(features.grid, "linear")
        assert features.grid is not None
        tokens = self.linear(resize_grid(features.tokens, features.grid, grid))
        return Features.of(tokens, features.mask.any(dim=2), grid)
