"""Blocks of a language model, recomputed in the backward pass or compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from omnihuman.mirror import strip

AUTO = "auto"
"""In place of a share: a training chooses it, and nothing is recomputed elsewhere."""


def check_share(value: Any) -> float:
    """Return the share of the blocks that are recomputed: ``False`` and ``auto`` are none, ``True`` all.

    Raises:
        ValueError: it is no number from 0 to 1.
    """
    if value == AUTO:
        return 0.0
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"activation_checkpointing={value}: expected true, false, auto, or the share of the blocks that are "
            "recomputed, such as 0.5."
        )
    return float(value)


def set_blocks(model: nn.Module, share: float, backend: str | None) -> None:
    """Let the blocks of a model of transformers run in another way, in place; names of parameters stay.

    A later call takes the place of an earlier one.

    Args:
        model: with blocks that can be recomputed.
        share: of the blocks, spread evenly, whose activations are recomputed in the backward pass; also where the
            model is frozen and gradients pass through it, which transformers leaves out.
        backend: of ``torch.compile``, by which every block is compiled for all lengths; ``None`` compiles nothing.

    Raises:
        ValueError: there is no such backend.
    """
    if backend is not None and backend not in torch.compiler.list_backends(None):
        raise ValueError(f"compile={backend}: choose from {', '.join(torch.compiler.list_backends())}, or null.")
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for number, block in enumerate(blocks):
        vars(block).pop("forward", None)
        is_recomputed = int((number + 1) * share) > int(number * share)
        if is_recomputed or backend is not None:
            # the function of the class and not the method: all blocks share what is compiled
            run = _compile(type(block), backend)
            block.forward = partial(_run_block, block, run, is_recomputed)


def _run_block(block: nn.Module, run: Callable[..., Any], is_recomputed: bool, *args: Any, **kwargs: Any) -> Any:
    kwargs = {key: strip(value) for key, value in kwargs.items()}  # a compiler takes no mirrors
    if is_recomputed and torch.is_grad_enabled():
        return checkpoint(run, block, *args, use_reentrant=False, **kwargs)
    return run(block, *args, **kwargs)


_COMPILED: dict[tuple[type, str], Callable[..., Any]] = {}


def _compile(block: type[nn.Module], backend: str | None) -> Callable[..., Any]:
    """Return the forward pass of a class of blocks, compiled once for each backend."""
    if backend is None:
        return block.forward
    key = (block, backend)
    if key not in _COMPILED:
        _COMPILED[key] = torch.compile(block.forward, backend=backend, dynamic=True, fullgraph=True)
    return _COMPILED[key]
