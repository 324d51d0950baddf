"""Precisions of a run: the dtype of its parameters, or autocast."""

from typing import Any

import torch
from torch import nn

from omnihuman.nn.parameters import cast_parameters
from omnihuman.pl import pl

DTYPES = {"bf16-true": torch.bfloat16, "32-true": torch.float32, "64-true": torch.float64}
"""Precision -> dtype of parameters, gradients and optimizer state."""

AUTOCAST = ("bf16-mixed", "16-mixed")
"""Precisions with float32 parameters, whose operations run in a narrower dtype where that is safe."""


class ParameterPrecision(pl.plugins.Precision):  # type: ignore[misc, name-defined]
    """Parameters, gradients and optimizer state in one dtype.

    Differs from Lightning's plugins, which also cast batches and buffers: here the encoders cast their input (frames
    are uint8, ids are integers), and buffers, such as the angles of rotary positions, keep their precision.

    Args:
        precision: a key of ``DTYPES``.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its parameters cast, in place."""
        cast_parameters(module, DTYPES[self.precision])
        return module


def build_precision(precision: str, accelerator: str) -> Any:
    """Return the plugin of a precision for Lightning's trainer.

    Args:
        precision: a key of ``DTYPES``, or one of ``AUTOCAST``.
        accelerator: of the trainer.

    Raises:
        ValueError: the precision is unknown, or the accelerator does not have it.
    """
    if precision in DTYPES:
        return ParameterPrecision(precision)
    if precision not in AUTOCAST:
        reason = ""
        if precision == "16-true":
            reason = " (AdamW divides by zero in float16)"
        raise ValueError(f"recipe.precision={precision}{reason}: expected {', '.join([*DTYPES, *AUTOCAST])}.")
    device = "cpu"
    if accelerator != "cpu" and torch.cuda.is_available():
        device = "cuda"
    if precision == "16-mixed" and device == "cpu":
        raise ValueError("recipe.precision=16-mixed needs a GPU: choose bf16-mixed or 32-true.")
    return pl.plugins.MixedPrecision(precision, device)
