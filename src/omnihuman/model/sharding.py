"""Sharding of FSDP2: each block of a stack on its own, the rest together, frozen encoders not at all."""

from collections.abc import Iterator

from torch import nn

from omnihuman.model.omni import OmniModel


def frozen_encoders(model: OmniModel) -> list[nn.Module]:
    """Return the encoders without trainable parameters.

    They are replicated on every rank: an encoder runs only on ranks whose batch has an input for it, and all ranks
    would have to gather its shards.
    """
    encoders = []
    for encoder in model.encoders.values():
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            encoders.append(encoder)
    return encoders


def replicated_parameters(model: OmniModel) -> set[nn.Parameter]:
    """Return the parameters that every rank stores in full."""
    parameters = set[nn.Parameter]()
    for encoder in frozen_encoders(model):
        parameters.update(encoder.parameters())
    return parameters


def sharded_blocks(model: OmniModel, replicated: set[nn.Parameter]) -> Iterator[nn.Module]:
    """Yield the blocks of all stacks of layers, without those of replicated parameters."""
    for stack in model.modules():
        if not isinstance(stack, nn.ModuleList):
            continue
        for block in stack:
            if not replicated.intersection(block.parameters()):
                yield block
