"""Running a network only where something is real."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def on_real(
    run: Callable[[Int[Tensor, " K"]], Tensor], real: Bool[Tensor, " B"], size: Sequence[int], dtype: torch.dtype
) -> Float[Tensor, "B ..."]:
    """What ``run`` makes of the rows that are real, ``[B *size]``; zeros in the place of all others.

    Where nothing is real but a graph is kept, one row runs all the same and weighs nothing: a network that learns takes
    part in every step on every rank, or the ranks would wait for each other for ever.

    Args:
        run: takes row numbers ``[K]`` and makes ``[K *size]``.
        real: the rows to run.
        size: of one row that comes out.
        dtype: of the zeros where nothing ran.

    >>> on_real(lambda rows: rows[:, None] + 1.0, torch.tensor([False, True]), (1,), torch.float32).tolist()
    [[0.0], [2.0]]
    """
    rows = real.nonzero().squeeze(-1)
    if len(rows) == len(real):
        return run(rows)
    if len(rows):
        made = run(rows)
    elif torch.is_grad_enabled():
        rows = rows.new_zeros(1)
        made = run(rows) * 0
    else:
        return torch.zeros(len(real), *size, dtype=dtype, device=real.device)
    return made.new_zeros(len(real), *size).index_copy(0, rows, made)
