"""Streams are concatenated and summed: with different lengths, with gaps, and with a missing stream."""

import pytest
import torch

from omnihuman.nn.streams import (
    concat_tokens,
    mean_pool,
    pad_to_longest,
    redistribute_weights,
    require_equal_layouts,
    require_equal_time_steps,
    weighted_sum,
)
from omnihuman.types import Features, Layout


def stream(value: float, mask: list[list[int]], tokens: int = 2) -> Features:
    valid = torch.tensor(mask, dtype=torch.bool)
    return Features.of(torch.full((*valid.shape, tokens, 3), float(value)), valid)


def test_shorter_stream_is_padded_and_masked() -> None:
    long, short = pad_to_longest([stream(1, [[1, 1, 0]]), stream(2, [[1]])])
    assert long.tokens.shape == short.tokens.shape == (1, 3, 2, 3)
    assert short.mask[..., 0].tolist() == [[True, False, False]]


def test_concatenated_tokens_keep_their_masks() -> None:
    joined = concat_tokens([stream(1, [[1, 1, 1]]), stream(2, [[1, 0, 1]], tokens=1)])
    assert joined.tokens[0, :, :, 0].tolist() == [[1, 1, 2]] * 3
    assert joined.mask[0].tolist() == [[True, True, True], [True, True, False], [True, True, True]]


def test_mean_is_over_valid_tokens() -> None:
    features = stream(1, [[1, 0, 1], [0, 0, 0]])
    features.tokens[0, 1] = torch.nan
    features.tokens[0, 2] = 4
    assert mean_pool(features).tolist() == [[2.5] * 3, [0] * 3]


def test_weight_of_invalid_streams_moves_to_the_valid() -> None:
    weights = torch.tensor([1.0, 2, 5])
    valid = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    shares = redistribute_weights(weights.expand(4, 3), valid)
    torch.testing.assert_close(shares, torch.tensor([[1, 2, 5], [8 / 3, 16 / 3, 0], [0, 0, 8], [0, 0, 0]]))


def test_sum_of_streams_with_gaps() -> None:
    """Frame 1 has both streams, frame 2 only the first, frame 3 none."""
    merged, shares = weighted_sum([stream(1, [[1, 1, 0]]), stream(5, [[1, 0, 0]])], torch.tensor([0.75, 0.25]))
    assert merged.tokens[0, :, 0, 0].tolist() == [2, 1, 0]
    assert merged.mask[0, :, 0].tolist() == [True, True, False]
    assert shares.tolist() == [[0.875, 0.125]]


def test_missing_stream_may_be_shorter() -> None:
    merged, shares = weighted_sum([stream(1, [[1, 1]]), stream(5, [[0]])], torch.tensor([0.5, 0.5]))
    assert merged.tokens.unique().tolist() == [1] and merged.mask.all() and shares.tolist() == [[1, 0]]


def test_unequal_streams_raise() -> None:
    layouts = [Layout(8, 196, (14, 14)), Layout(1, 96)]
    with pytest.raises(ValueError, match=r"x .*frame by frame.*\{'a': 8, 'b': 1\}.*clip_concat"):
        require_equal_time_steps(layouts, ["a", "b"], "x")
    with pytest.raises(ValueError, match=r"x .*one shape.*\{'a': Layout\(.*'b': Layout\("):
        require_equal_layouts(layouts, ["a", "b"], "x")


def test_levels_do_not_count_as_a_difference() -> None:
    plain = Layout(8, 196, (14, 14))
    leveled = plain._replace(levels=(Layout(8, 96),))
    assert require_equal_layouts([leveled, plain], ["a", "b"], "x") == plain
    assert require_equal_time_steps([leveled, plain], ["a", "b"], "x") == 8
