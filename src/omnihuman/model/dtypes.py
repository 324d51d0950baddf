"""Dtypes of parameters and operations at each precision of a run."""

import torch
from torch import Tensor

DTYPES = {"32-true": torch.float32, "64-true": torch.float64}
"""Precisions without autocast -> dtype of parameters, gradients and optimizer state."""

AUTOCAST = {"bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions with trainable parameters in float32 -> dtype of the operations where that is safe."""

FROZEN = {"bf16": torch.bfloat16}
"""Precisions whose frozen matrices have another dtype than the trainable ones."""


def select_dtype(precision: str, parameter: Tensor) -> torch.dtype:
    """Return the dtype in which a parameter is stored; ``requires_grad`` says if it is frozen.

    Frozen vectors, such as the scales of norms and biases, are stored as trainable ones are: they need little memory,
    and norms on a CPU take no narrower ones for inputs in float32.

    >>> matrix = torch.nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    >>> select_dtype("bf16", matrix), select_dtype("bf16", torch.nn.Parameter(matrix[0], requires_grad=False))
    (torch.bfloat16, torch.float32)
    """
    if not parameter.requires_grad and parameter.ndim > 1 and precision in FROZEN:
        return FROZEN[precision]
    return DTYPES.get(precision, torch.float32)
