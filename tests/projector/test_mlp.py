"""The MLP projector has the official parameter names, and resizes before its last Linear."""

import pytest
import torch

from omnihuman.projector.mlp import MLPProjector
from omnihuman.types import Features, Layout


def test_parameters_have_the_official_names() -> None:
    names = ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    assert list(MLPProjector(8, 16).state_dict()) == names
    assert list(MLPProjector(8, 16, depth=1).state_dict()) == names[:2]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_resize_before_the_last_linear_equals_after(depth: int) -> None:
    torch.manual_seed(0)
    resizing, plain = MLPProjector(8, 16, depth, "ceil_half"), MLPProjector(8, 16, depth)
    plain.load_state_dict(resizing.state_dict())
    features = Features.of(torch.randn(2, 3, 25, 8), torch.ones(2, 3, dtype=torch.bool), (5, 5))
    maps = plain(features).tokens.unflatten(2, (5, 5)).permute(0, 1, 4, 2, 3).flatten(0, 1)
    expected = torch.nn.functional.interpolate(maps, (3, 3), mode="bilinear").flatten(2).mT.unflatten(0, (2, 3))
    projected = resizing(features)
    torch.testing.assert_close(projected.tokens, expected, atol=1e-6, rtol=1e-5)
    assert projected.grid == (3, 3) and resizing.layout(Layout(3, 25, (5, 5))) == Layout(3, 9, (3, 3))


def test_resize_without_a_grid_raises() -> None:
    audio = Features.of(torch.randn(1, 9, 1, 8), torch.ones(1, 9, dtype=torch.bool))
    assert MLPProjector(8, 16)(audio).tokens.shape == (1, 9, 1, 16)
    with pytest.raises(ValueError, match=r"mlp: resize=ceil_half .*grid.*resize=null"):
        MLPProjector(8, 16, resize="ceil_half")(audio)


def test_invalid_depth_raises() -> None:
    with pytest.raises(ValueError, match="mlp: depth=0"):
        MLPProjector(8, 16, depth=0)
