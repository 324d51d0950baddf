"""A grid made smaller keeps its places."""

import pytest
import torch

from omnihuman.nn.grid import half_grid, half_layout, resize_grid
from omnihuman.types import Layout


def test_half_rounds_up() -> None:
    assert half_grid((27, 14), "mlp") == (14, 7)
    assert half_layout(Layout(3, 49, (7, 7)), "mlp") == Layout(3, 16, (4, 4))


def test_no_grid_is_named() -> None:
    with pytest.raises(ValueError, match=r"mlp halves a grid, .* has none: set its resize=null"):
        half_grid(None, "mlp")


def test_an_even_grid_is_averaged_by_twos() -> None:
    tokens = torch.randn(2, 3, 6 * 4, 5)
    means = tokens.reshape(2, 3, 3, 2, 2, 2, 5).mean((3, 5)).flatten(2, 3)
    torch.testing.assert_close(resize_grid(tokens, (6, 4), (3, 2)), means)


def test_rows_stay_rows() -> None:
    rows = torch.arange(5.0).repeat_interleave(3).reshape(1, 1, 15, 1)
    small = resize_grid(rows, (5, 3), (3, 2)).reshape(3, 2)
    assert torch.equal(small[:, 0], small[:, 1])
    assert small[0, 0] < small[1, 0] < small[2, 0]
