"""The content of a checkpoint: the state of a training as JSON and safetensors."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from omnihuman.training.checkpoint import STATE, TENSORS, delete_old, seal
from omnihuman.training.safetensors_writer import apply_umask

TENSOR, TUPLE, ITEMS = "$tensor", "$tuple", "$items"
"""Keys of what JSON does not have: a tensor by its name, a tuple, and a mapping whose keys are not all texts."""


def encode(value: Any, tensors: dict[str, Tensor], place: str = "") -> Any:
    """Return a state as JSON can hold it; its tensors are added to ``tensors`` under their places.

    >>> encode({"betas": (0.9, 0.95), "steps": {3: 0.5}}, {})
    {'betas': {'$tuple': [0.9, 0.95]}, 'steps': {'$items': [[3, 0.5]]}}

    Raises:
        ValueError: something in it is neither a number, a text, a tensor nor a collection of these.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[place] = value.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: place}
    if isinstance(value, list | tuple):
        entries = [encode(entry, tensors, f"{place}/{index}") for index, entry in enumerate(value)]
        return {TUPLE: entries} if isinstance(value, tuple) else entries
    if not isinstance(value, Mapping):
        raise ValueError(f"checkpoint: {place} is a {type(value).__name__}; numbers, texts and tensors can be stored.")
    encoded = [[encode(key, {}), encode(entry, tensors, f"{place}/{key}")] for key, entry in value.items()]
    if all(isinstance(key, str) for key in value):
        return dict(encoded)
    return {ITEMS: encoded}


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the state that ``encode`` has turned into this value and these tensors."""
    if isinstance(value, list):
        return [decode(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if TUPLE in value:
        return tuple(decode(value[TUPLE], tensors))
    if ITEMS in value:
        return {key: decode(entry, tensors) for key, entry in value[ITEMS]}
    return {key: decode(entry, tensors) for key, entry in value.items()}


def write_state(folder: Path, plain: Any, tensors: Mapping[str, Tensor]) -> None:
    """Write an encoded state into a folder."""
    save_file(dict(tensors), folder / TENSORS)
    apply_umask(folder)
    (folder / STATE).write_text(json.dumps(plain))


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state in a folder, its tensors on the CPU.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        state: dict[str, Any] = decode(json.loads((folder / STATE).read_text()), load_file(folder / TENSORS))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read ({error}): remove it to resume from the one before.") from error
    return state


def complete(
    partial: Path,
    folder: Path,
    plain: Any,
    tensors: Mapping[str, Tensor],
    num_kept: int,
    checksums: Mapping[str, int] | None = None,
) -> None:
    """Write the state into a folder, give it its name, and delete older checkpoints.

    Args:
        partial: the folder in which the checkpoint is written.
        folder: its name.
        plain: the encoded state ...
        tensors: ... and its tensors.
        num_kept: checkpoints that stay, this one included.
        checksums: see ``seal``.
    """
    write_state(partial, plain, tensors)
    seal(partial, folder, checksums or {})
    delete_old(folder.parent, num_kept)


@contextmanager
def explain_failure(folder: Path) -> Iterator[None]:
    """Raise an error of the disk as one that says what is left.

    Raises:
        OSError: a file cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError, CheckpointException) as error:
        cause: BaseException = error
        if isinstance(error, CheckpointException):  # of the first rank; its own text has all tracebacks
            cause = next(iter(error.failures.values()))[0]
        raise OSError(
            f"{folder} cannot be written ({cause}). The checkpoints before it stay; the same command resumes from them."
        ) from error
