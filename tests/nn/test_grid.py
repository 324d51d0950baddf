"""Tokens on a smaller grid stay in place."""

import pytest
import torch

from omnihuman.nn.grid import halve_grid, halve_layout, resize_grid
from omnihuman.types import Layout


def test_half_is_rounded_up() -> None:
    assert halve_grid((27, 14), "mlp") == (14, 7)
    assert halve_layout(Layout(3, 49, (7, 7)), "mlp") == Layout(3, 16, (4, 4))


def test_missing_grid_raises() -> None:
    with pytest.raises(ValueError, match=r"mlp: resize=ceil_half .*grid.*resize=null"):
        halve_grid(None, "mlp")


def test_even_grid_is_averaged_in_pairs() -> None:
    tokens = torch.randn(2, 3, 6 * 4, 5)
    means = tokens.reshape(2, 3, 3, 2, 2, 2, 5).mean((3, 5)).flatten(2, 3)
    torch.testing.assert_close(resize_grid(tokens, (6, 4), (3, 2)), means)


def test_rows_and_columns_are_not_swapped() -> None:
    rows = torch.arange(5.0).repeat_interleave(3).reshape(1, 1, 15, 1)
    small = resize_grid(rows, (5, 3), (3, 2)).reshape(3, 2)
    assert torch.equal(small[:, 0], small[:, 1])
    assert small[0, 0] < small[1, 0] < small[2, 0]
