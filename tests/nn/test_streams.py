"""Streams side by side and as a sum: of other lengths, with holes, and where one is missing."""

import pytest
import torch

from omnihuman.nn.streams import one_length, one_shape, pooled, shared_out, side_by_side, to_longest, weighted_sum
from omnihuman.types import Features, Layout


def stream(value: float, mask: list[list[int]], tokens: int = 2) -> Features:
    real = torch.tensor(mask, dtype=torch.bool)
    return Features.of(torch.full((*real.shape, tokens, 3), float(value)), real)


def test_the_shorter_is_padded_by_hidden_moments() -> None:
    long, short = to_longest([stream(1, [[1, 1, 0]]), stream(2, [[1]])])
    assert long.tokens.shape == short.tokens.shape == (1, 3, 2, 3)
    assert short.mask[..., 0].tolist() == [[True, False, False]]


def test_side_by_side_keeps_holes() -> None:
    made = side_by_side([stream(1, [[1, 1, 1]]), stream(2, [[1, 0, 1]], tokens=1)])
    assert made.tokens[0, :, :, 0].tolist() == [[1, 1, 2]] * 3
    assert made.mask[0].tolist() == [[True, True, True], [True, True, False], [True, True, True]]


def test_the_mean_is_that_of_real_tokens() -> None:
    given = stream(1, [[1, 0, 1], [0, 0, 0]])
    given.tokens[0, 1] = torch.nan
    given.tokens[0, 2] = 4
    assert pooled(given).tolist() == [[2.5] * 3, [0] * 3]


def test_the_missing_leave_their_weight_to_the_others() -> None:
    weights = torch.tensor([1.0, 2, 5])
    real = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    shares = shared_out(weights.expand(4, 3), real)
    torch.testing.assert_close(shares, torch.tensor([[1, 2, 5], [8 / 3, 16 / 3, 0], [0, 0, 8], [0, 0, 0]]))


def test_a_sum_with_holes() -> None:
    """Frame 1 has both, frame 2 the first alone; the third has none."""
    merged, shares = weighted_sum([stream(1, [[1, 1, 0]]), stream(5, [[1, 0, 0]])], torch.tensor([0.75, 0.25]))
    assert merged.tokens[0, :, 0, 0].tolist() == [2, 1, 0]
    assert merged.mask[0, :, 0].tolist() == [True, True, False]
    assert shares.tolist() == [[0.875, 0.125]]


def test_a_missing_stream_may_be_short() -> None:
    merged, shares = weighted_sum([stream(1, [[1, 1]]), stream(5, [[0]])], torch.tensor([0.5, 0.5]))
    assert merged.tokens.unique().tolist() == [1] and merged.mask.all() and shares.tolist() == [[1, 0]]


def test_misfits_are_named() -> None:
    layouts = [Layout(8, 196, (14, 14)), Layout(1, 96)]
    with pytest.raises(ValueError, match=r"x joins frame by frame, .* \{'a': 8, 'b': 1\} moments: choose clip_concat"):
        one_length(layouts, ["a", "b"], "x")
    with pytest.raises(
        ValueError, match=r"x adds streams of one shape, got \{'a': .*'b': Layout\(moments=1, tokens=96"
    ):
        one_shape(layouts, ["a", "b"], "x")
    leveled = layouts[0]._replace(levels=(layouts[1],))
    assert one_shape([leveled, layouts[0]], ["a", "b"], "x") == layouts[0]
    assert one_length([leveled, layouts[0]], ["a", "b"], "x") == 8
