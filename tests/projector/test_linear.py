"""One matrix, with or without a smaller grid."""

import pytest
import torch

from omnihuman.projector.linear import LinearProjector
from omnihuman.types import Features, Layout

FRAMES = Features.of(torch.randn(2, 3, 49, 8), torch.tensor([[True] * 3, [True, False, False]]), (7, 7))


def test_is_one_linear() -> None:
    projector = LinearProjector(8, 5)
    made = projector(FRAMES)
    assert torch.equal(made.tokens, projector.linear(FRAMES.tokens))
    assert torch.equal(made.mask, FRAMES.mask) and made.grid == (7, 7)
    assert projector.layout(Layout(3, 49, (7, 7))) == Layout(3, 49, (7, 7))


def test_resize() -> None:
    projector = LinearProjector(8, 5, resize="ceil_half")
    made = projector(FRAMES)
    assert made.tokens.shape == (2, 3, 16, 5) and made.grid == (4, 4)
    assert made.mask.sum() == 4 * 16
    assert projector.layout(Layout(3, 49, (7, 7))) == Layout(3, 16, (4, 4))
    with pytest.raises(ValueError, match="linear halves a grid"):
        projector.layout(Layout(3, 49))
