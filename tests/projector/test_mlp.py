"""Linears with exact GELUs between, in the official layout of names."""

import pytest
import torch

from omnihuman.projector.mlp import MLPProjector
from omnihuman.types import Features, Layout


def test_names_are_the_official_ones() -> None:
    assert set(MLPProjector(8, 16).state_dict()) == {
        f"layers.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")
    }
    assert set(MLPProjector(8, 16, depth=1).state_dict()) == {"layers.0.weight", "layers.0.bias"}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_resize_before_the_last_linear_equals_after(depth: int) -> None:
    torch.manual_seed(0)
    with_resize, without = MLPProjector(8, 16, depth, "ceil_half"), MLPProjector(8, 16, depth)
    without.load_state_dict(with_resize.state_dict())
    features = Features.of(torch.randn(2, 3, 25, 8), torch.ones(2, 3, dtype=torch.bool), (5, 5))
    maps = without(features).tokens.unflatten(2, (5, 5)).permute(0, 1, 4, 2, 3).flatten(0, 1)
    after = torch.nn.functional.interpolate(maps, (3, 3), mode="bilinear").flatten(2).mT.unflatten(0, (2, 3))
    made = with_resize(features)
    torch.testing.assert_close(made.tokens, after, atol=1e-6, rtol=1e-5)
    assert made.grid == (3, 3) and with_resize.layout(Layout(3, 25, (5, 5))) == Layout(3, 9, (3, 3))


def test_sound_has_no_grid() -> None:
    sound = Features.of(torch.randn(1, 9, 1, 8), torch.ones(1, 9, dtype=torch.bool))
    assert MLPProjector(8, 16)(sound).tokens.shape == (1, 9, 1, 16)
    with pytest.raises(ValueError, match="mlp halves a grid"):
        MLPProjector(8, 16, resize="ceil_half")(sound)


def test_depth_is_checked() -> None:
    with pytest.raises(ValueError, match="depth counts the Linears, got 0"):
        MLPProjector(8, 16, depth=0)
