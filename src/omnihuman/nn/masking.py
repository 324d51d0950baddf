"""Running a network on the valid samples of a batch only."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def run_on_valid(
    run: Callable[[Int[Tensor, " K"]], Tensor], valid: Bool[Tensor, " B"], size: Sequence[int], dtype: torch.dtype
) -> Float[Tensor, "B ..."]:
    """Return the output of ``run`` for the valid samples and zeros for all others, ``[B *size]``.

    If no sample is valid but a graph is recorded, one sample runs all the same, times zero: under DDP and FSDP2 every
    rank must take part in every step of a trainable network, or the other ranks wait for its gradients for ever.

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
    elif torch.is_grad_enabled():
        index = index.new_zeros(1)
        output = run(index) * 0
    else:
        return torch.zeros(len(valid), *size, dtype=dtype, device=valid.device)
    return output.new_zeros(len(valid), *size).index_copy(0, index, output)
