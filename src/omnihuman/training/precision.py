"""Precisions of a run: the dtypes of its trainable and of its frozen parameters, and autocast."""

from typing import Any

import torch
from torch import nn

from omnihuman.model.dtypes import AUTOCAST, DTYPES, select_dtype
from omnihuman.nn.parameters import cast_parameters
from omnihuman.pl import pl

REASONS = {
    "16-true": "AdamW divides by zero in float16",
    "bf16-true": "most updates are too small for bfloat16 and are lost; with LoRA or without, take bf16",
}
"""Precisions that are refused -> the reason."""


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


class AutocastPrecision(pl.plugins.MixedPrecision):  # type: ignore[misc, name-defined]
    """Trainable parameters, gradients and optimizer state in float32; operations in a narrower dtype.

    An update of AdamW changes a weight by about the learning rate. The neighbours of 0.02 in bfloat16 are 1.2e-4 away,
    so this weight needs an update above 6e-5 to change at all: parameters that train are in float32.

    Frozen matrices are stored in the narrower dtype under ``bf16``.

    Args:
        precision: a key of ``AUTOCAST``.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, precision: str, device: str) -> None:
        super().__init__("16-mixed" if precision == "16-mixed" else "bf16-mixed", device)
        self.precision, self.compute_dtype = precision, AUTOCAST[precision]

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its parameters cast, in place; those without gradients are the frozen ones."""
        for parameter in module.parameters():
            dtype = select_dtype(self.precision, parameter)
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
        return module

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=self.compute_dtype, cache_enabled=False)


def build_precision(precision: str, accelerator: str) -> Any:
    """Return the plugin of a precision for Lightning's trainer.

    Args:
        precision: a key of ``DTYPES`` or of ``AUTOCAST``.
        accelerator: of the trainer.

    Raises:
        ValueError: the precision is unknown or refused, or the accelerator does not have it.
    """
    if precision in DTYPES:
        return ParameterPrecision(precision)
    if precision not in AUTOCAST:
        reason = f" ({REASONS[precision]})" if precision in REASONS else ""
        raise ValueError(f"recipe.precision={precision}{reason}: expected {', '.join([*DTYPES, *AUTOCAST])}.")
    device = "cpu"
    if accelerator != "cpu" and torch.cuda.is_available():
        device = "cuda"
    if precision == "16-mixed" and device == "cpu":
        raise ValueError("recipe.precision=16-mixed needs a GPU: choose bf16 or 32-true.")
    return AutocastPrecision(precision, device)
