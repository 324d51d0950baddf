"""Hidden states of chosen blocks become levels, shallow to deep."""

import pytest
import torch

from omnihuman.nn.levels import select_blocks, split_states, stack_states


def test_number_of_levels_is_spread_evenly() -> None:
    assert select_blocks(0, 4, "x") == ()
    assert select_blocks(4, 4, "x") == (1, 2, 3, 4)
    assert select_blocks(4, 23, "x") == (5, 11, 17, 23)
    assert select_blocks([2, 3], 4, "x") == (2, 3)


@pytest.mark.parametrize("levels", [[0], [5], [3, 2], [2, 2]])
def test_invalid_blocks_raise(levels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"x: levels=\[.*\].*ascending.* 1 to 4\b"):
        select_blocks(levels, 4, "x")


@pytest.mark.parametrize("levels", [-1, 5])
def test_more_levels_than_blocks_raise(levels: int) -> None:
    with pytest.raises(ValueError, match=rf"x: levels={levels};.* 0 to 4\b"):
        select_blocks(levels, 4, "x")


def test_last_state_is_the_tokens_and_the_others_are_levels() -> None:
    states = [torch.full((2, 3, 4, 5), float(value)) for value in range(3)]
    mask = torch.ones(2, 3, dtype=torch.bool)
    features = split_states(stack_states(states), mask, (2, 2))
    assert torch.equal(features.tokens, states[2]) and features.grid == (2, 2)
    assert [float(level.tokens.mean()) for level in features.levels] == [0, 1]
    assert all(level.grid == (2, 2) and level.mask.all() for level in features.levels)


def test_single_state_is_not_copied() -> None:
    state = torch.zeros(2, 3, 4, 5)
    features = split_states(stack_states([state]), torch.ones(2, 3, dtype=torch.bool), None)
    assert features.tokens.data_ptr() == state.data_ptr() and features.levels == ()
