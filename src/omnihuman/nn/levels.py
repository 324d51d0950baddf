"""Hidden states of several blocks of an encoder as the levels of its features."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omnihuman.types import Features


def select_blocks(levels: int | Sequence[int], num_blocks: int, encoder: str) -> tuple[int, ...]:
    """Return the blocks whose hidden states are levels, shallow to deep; block 1 is the first.

    Args:
        levels: the blocks, or a number of blocks at even distances of which the last is block ``num_blocks``.
        num_blocks: blocks that the encoder runs.
        encoder: its name, for the error.

    Raises:
        ValueError: a block does not exist, or the blocks are not in ascending order.

    >>> select_blocks(4, 26, "siglip")
    (6, 13, 19, 26)
    """
    if isinstance(levels, int):
        if not 0 <= levels <= num_blocks:
            raise ValueError(f"{encoder}: levels={levels}; expected 0 to {num_blocks}, the number of blocks that run.")
        return tuple(num_blocks * step // levels for step in range(1, levels + 1))
    blocks = tuple(levels)
    if sorted(set(blocks) & set(range(1, num_blocks + 1))) != list(blocks):
        raise ValueError(f"{encoder}: levels={list(blocks)}; expected ascending blocks of 1 to {num_blocks}.")
    return blocks


def stack_states(states: Sequence[Float[Tensor, "*B N D"]]) -> Float[Tensor, "*B S N D"]:
    """Stack hidden states of one shape; a single state is not copied."""
    if len(states) == 1:
        return states[0].unsqueeze(-3)
    return torch.stack(list(states), dim=-3)


def split_states(
    states: Float[Tensor, "B T S N D"], mask: Bool[Tensor, "B T"], grid: tuple[int, int] | None
) -> Features:
    """Return the last state as tokens ``[B T N D]`` and the states before it as their levels."""
    *levels, tokens = states.unbind(dim=2)
    features = Features.of(tokens, mask, grid)
    return replace(features, levels=tuple(Features.of(level, mask, grid) for level in levels))
