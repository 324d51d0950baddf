"""The linear projector, with and without a smaller grid."""

import pytest
import torch

from omnihuman.projector.linear import LinearProjector
from omnihuman.types import Features, Layout

FRAMES = Features.of(torch.randn(2, 3, 49, 8), torch.tensor([[True] * 3, [True, False, False]]), (7, 7))


def test_equals_one_linear() -> None:
    projector = LinearProjector(8, 5)
    projected = projector(FRAMES)
    assert torch.equal(projected.tokens, projector.linear(FRAMES.tokens))
    assert torch.equal(projected.mask, FRAMES.mask) and projected.grid == (7, 7)
    assert projector.layout(Layout(3, 49, (7, 7))) == Layout(3, 49, (7, 7))


def test_resize_halves_the_grid() -> None:
    projector = LinearProjector(8, 5, resize="ceil_half")
    projected = projector(FRAMES)
    assert projected.tokens.shape == (2, 3, 16, 5) and projected.grid == (4, 4)
    assert projected.mask.sum() == 4 * 16
    assert projector.layout(Layout(3, 49, (7, 7))) == Layout(3, 16, (4, 4))
    with pytest.raises(ValueError, match=r"linear: resize=ceil_half .*grid.*resize=null"):
        projector.layout(Layout(3, 49))
