"""Running a network on the valid samples of a batch only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_RUNS_BLANKS = ContextVar("runs_blanks", default=False)


@contextmanager
def run_blanks() -> Iterator[None]:
    """Let ``run_on_valid`` run one sample where none is valid, also without a graph.

    A sharded module gathers its parameters from all ranks whenever it runs: every rank must run it, in validation too.
    """
    token = _RUNS_BLANKS.set(True)
    try:
        yield
    finally:
        _RUNS_BLANKS.reset(token)


def run_on_valid(
    run: Callable[[Int[Tensor, " K"]], Tensor], valid: Bool[Tensor, " B"], size: Sequence[int], dtype: torch.dtype
) -> Float[Tensor, "B ..."]:
    """Return the output of ``run`` for the valid samples and zeros for all others, ``[B *size]``.

    If no sample is valid but a graph is recorded, or within ``run_blanks``, one sample runs all the same, times zero:
    under DDP and FSDP2 every rank must take part in every step of a trainable network, or the other ranks wait for its
    gradients for ever.

    Args:
        run: indices of samples ``[K]`` -> their output ``[K *size]``.
        valid: the samples to run.
        size: shape of one sample's output.
        dtype: of the zeros, if nothing runs.

    >>> run_on_valid(lambda index: index[:, None] + 1.0, torch.tensor([False, True]), (1,), torch.float32).tolist()
    [[0.0], [2.0]]
    """
    index = valid.nonzero().squeeze(-1)
    if len(index) == len(valid):
        return run(index)
    if len(index):
        output = run(index)
    elif torch.is_grad_enabled() or _RUNS_BLANKS.get():
        index = index.new_zeros(1)
        output = run(index) * 0
    else:
        return torch.zeros(len(valid), *size, dtype=dtype, device=valid.device)
    return output.new_zeros(len(valid), *size).index_copy(0, index, output)
