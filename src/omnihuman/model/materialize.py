"""Values for a model that was built without memory: every rank reads or draws what it stores."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from omnihuman.model.trainable import canonical_name, strip_wrappers
from omnihuman.nn.deferred import Recording, find_owners
from omnihuman.nn.finite import check_finite


def materialize(
    model: nn.Module, recording: Recording, device: torch.device, parts: Sequence[nn.Module] | None = None
) -> None:
    """Give parameters without memory their values, one after the other; of a sharded one, this rank's shard.

    The memory of the host has the parameters on it and one whole tensor at most. A parameter on the CPU with the dtype
    of its file stays a map of the file, unless it is sharded. If tensors are sharded, all ranks must call this.

    Args:
        model: may be sharded.
        recording: of its build.
        device: of the parameters.
        parts: modules below the model whose parameters get values; ``None`` for all.

    Raises:
        ValueError: a value of a file is not finite, on this rank or another.
    """
    selected = set[int]()
    for part in [model] if parts is None else parts:
        selected.update(map(id, part.parameters()))
    targets = {}
    for name, parameter in model.named_parameters():
        if parameter.is_meta and id(parameter) in selected:
            targets[strip_wrappers(name)] = parameter
    if not targets:
        return
    error = ""
    try:
        _fill(model, recording, targets, device)
    except ValueError as failure:
        error = str(failure)
    if any(isinstance(parameter, DTensor) for parameter in targets.values()):
        error = _find_error(error)
    if error:
        raise ValueError(error)
    model._apply(lambda tensor: tensor)  # type: ignore[no-untyped-call]  # modules of FSDP2 notice their new parameters


def _fill(model: nn.Module, recording: Recording, targets: Mapping[str, nn.Parameter], device: torch.device) -> None:
    """Replace parameters by those with values.

    Raises:
        ValueError: a value of a file is not finite, or nothing gives a parameter a value.
    """
    owners = find_owners(model)
    missing = {*targets}
    for name, value in recording.replay([*targets], device):
        parameter, place = targets[name], recording.places[name]
        value = _cut(parameter, value)
        if place.storage in recording.files:
            check_finite(recording.files[place.storage], canonical_name(name), value)
        placed = _build_parameter(parameter, value, place.dtype, device)
        del value  # which may be a view of a whole tensor
        for module, key in owners[id(parameter)][1]:
            module.register_parameter(key, placed)
        missing.remove(name)
    if missing:
        raise ValueError(f"{sorted(missing)[0]}: its part neither initializes this parameter nor loads it.")


def _build_parameter(parameter: nn.Parameter, value: Tensor, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    """Return a parameter like another, with the value of this rank, which is rounded to ``dtype`` first."""
    data = value.to(device).to(dtype).to(parameter.dtype)
    if isinstance(parameter, DTensor):
        if data.data_ptr() == value.data_ptr():  # of a whole tensor
            data = data.clone()
        data = DTensor.from_local(
            data.contiguous(),
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
    return nn.Parameter(data, requires_grad=parameter.requires_grad)


def _cut(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the shard of a value that this rank stores."""
    if not isinstance(parameter, DTensor):
        return value
    sizes, offsets = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    for dimension, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        value = value.narrow(dimension, min(offset, value.shape[dimension] - size), size)  # may be empty
    return value


def _find_error(error: str) -> str:
    """Return the first error of all ranks, so that none waits for one that has failed."""
    if not dist.is_initialized():
        return error
    errors: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(errors, error)
    return next(filter(None, errors), "")
