"""Sharding of FSDP2: units of parameters that are gathered and reduced together; frozen encoders are not sharded."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import register_dataclass

from omnihuman.model.omni import OmniModel
from omnihuman.types import Features, Output

FORWARD_METHODS = ("answer_ids", "option_log_probs", "fusion_weights")
"""Methods of the model that run its parts, beside ``forward``: a sharded model gathers its parameters for them."""


def frozen_encoders(model: OmniModel) -> list[nn.Module]:
    """Return the encoders without trainable parameters.

    They are replicated on every rank: an encoder runs only on ranks whose batch has an input for it, and all ranks
    would have to gather its shards.
    """
    return [encoder for encoder in model.encoders.values() if not _is_trainable(encoder)]


def replicated_parameters(model: OmniModel) -> set[nn.Parameter]:
    """Return the parameters that every rank stores in full; all of them are frozen."""
    parameters = set[nn.Parameter]()
    for encoder in frozen_encoders(model):
        parameters.update(encoder.parameters())
    return parameters


def sharded_units(model: OmniModel) -> Iterator[nn.Module]:
    """Yield the modules whose parameters are gathered on their own, inner ones first; the rest is one more unit.

    They are the blocks, the embedding and the head of the LLM, the blocks of trainable encoders and what else these
    encoders have, the projectors and the fusions. An embedding that is the head as well stays in the rest, since it is
    in use from the beginning of a forward pass to its end.
    """
    for encoder in model.encoders.values():
        if _is_trainable(encoder):
            yield from iterate_blocks(encoder)
            yield encoder
    for group in (model.early_fusions, model.projectors, model.fusions):
        for part in group.values():
            if next(part.parameters(), None) is not None:
                yield part
    yield from iterate_blocks(model.llm)
    ends = [model.llm.model.get_input_embeddings(), model.llm.model.get_output_embeddings()]
    if ends[1] is not None and not set(ends[0].parameters()) & set(ends[1].parameters()):
        yield from ends


def shard_model(model: OmniModel, mesh: Any, dtype: torch.dtype | None = None) -> None:
    """Shard the parameters of a model over the last dimension of a mesh, in place; a first one replicates the shards.

    Args:
        model: its frozen encoders stay as they are.
        mesh: of one dimension or two.
        dtype: in which parameters are gathered; gradients are reduced in float32 then. ``None`` for their own.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    _register_containers()
    options: dict[str, Any] = {"mesh": mesh}
    if dtype is not None:
        # autocast would cast float32 weights in every forward, after twice the bytes have been gathered
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    for unit in list(sharded_units(model)):
        fully_shard(unit, **options)
    fully_shard(model, ignored_params=replicated_parameters(model), **options)
    for name in FORWARD_METHODS:
        register_fsdp_forward_method(model, name)


@cache
def _register_containers() -> None:
    """Let FSDP2 find the tensors in the outputs of parts, whose gradients begin the backward pass of a unit."""
    for container in (Features, Output):
        register_dataclass(container)


def iterate_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of all outer stacks of layers; an inner one, such as of experts, belongs to its block."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from iterate_blocks(child)


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
