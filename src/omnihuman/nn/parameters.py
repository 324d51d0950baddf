"""Changes of all parameters of a module."""

import torch
from torch import nn


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters; buffers, such as the angles of rotary positions, keep their precision."""
    for parameter in module.parameters():
        if parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
