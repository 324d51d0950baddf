"""weights.safetensors: the parameters that a chain has trained, by their names in the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from omnihuman.model.trainable import canonical_name
from omnihuman.nn.deferred import Recording
from omnihuman.nn.finite import check_finite
from omnihuman.training.safetensors_writer import MAX_SHARD_SIZE, Header, order_reads, write_sharded
from omnihuman.training.shards import find_shards

if TYPE_CHECKING:  # its import of Lightning takes seconds
    from omnihuman.objective.base import Objective

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Dtypes of safetensors by their names in torch."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The keys of a weights file, loaded and ignored.

    Attributes:
        file: the weights file.
        loaded: names of the tensors that are now in the model.
        ignored: names in the file that ``only`` and ``without`` do not select.
    """

    file: Path
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        parts = ", ".join(_part_names(self.loaded))
        return f"{self.file}: {len(self.loaded)} tensors loaded ({parts}), {len(self.ignored)} ignored"


def load_weights(
    model: nn.Module,
    file: Path,
    only: str | Sequence[str] = "*",
    without: Sequence[str] = (),
    recording: Recording | None = None,
) -> KeyReport:
    """Copy the tensors of a file into the parameters and buffers of the same names.

    Args:
        model: its parameters and buffers are changed.
        file: a safetensors file, or one in whose place there is an index of shards.
        only: pattern or patterns of the names to load.
        without: patterns of names that are not loaded, even if ``only`` matches them.
        recording: of the build of a model without memory: it gets maps of the file, and nothing is read yet.

    Raises:
        ValueError: the file is missing or no safetensors file, a name is not in the model, a shape differs, a parameter
            that a pattern matches is not in the file, a pattern matches nothing, or a tensor is not finite.
    """
    patterns = [only] if isinstance(only, str) else list(only)
    with open_weights(file) as tensors:
        shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
        selected = _select(model, file, shapes, patterns, without)
        targets = _canonical_state(model)
        for name in selected:
            _load_tensor(targets[name], tensors[name][...], file, name, recording)
    return KeyReport(file, tuple(selected), tuple(sorted(shapes.keys() - {*selected})))


def _select(
    model: nn.Module,
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    patterns: Sequence[str],
    without: Sequence[str],
) -> list[str]:
    """Return the sorted names to load, after comparing the file with the model."""
    selected = _match(shapes, patterns) - _match(shapes, without)
    parameters = _canonical_state(model)
    for pattern in patterns:
        if not _match(selected, [pattern]):
            raise ValueError(f"{file}: nothing matches {pattern!r}; the file holds {_part_names(shapes)}.")
    unexpected = sorted(selected - set(parameters))
    if unexpected:
        raise ValueError(
            f"{file}: {len(unexpected)} unexpected keys that the model does not have, the first {unexpected[:3]}: was "
            "the file saved with other parts? Choose the same parts, or narrow `only`."
        )
    specific = [pattern for pattern in patterns if pattern != "*"]  # a file need not hold the whole model
    missing = sorted(_match(parameters, specific) - set(shapes))
    if missing:
        raise ValueError(f"{file}: {len(missing)} keys that match {specific} are missing, the first {missing[:3]}.")
    for name in sorted(selected):
        shape, expected = shapes[name], tuple(parameters[name].shape)
        if shape != expected:
            raise ValueError(f"{file}: {name} has the shape {shape}; the model expects {expected}.")
    return sorted(selected)


def _load_tensor(target: Tensor, value: Tensor, file: Path, name: str, recording: Recording | None) -> None:
    if target.is_meta:
        assert recording is not None, name
        recording.assign(target, value, file)
        return
    check_finite(file, name, value)
    target.data.copy_(value)


def write_weights(
    file: Path,
    objective: "Objective",
    names: Iterable[str],
    metadata: Mapping[str, str],
    max_shard_size: int = MAX_SHARD_SIZE,
) -> None:
    """Write the named tensors of the model of an objective in the main process; every rank must call it.

    Sharded tensors are gathered one by one while they are written.

    Raises:
        ValueError: a tensor is not finite, or the main process could not write.
        OSError: raised in the main process if it cannot write.
    """
    state = _canonical_state(objective.model)
    headers = {name: Header(tuple(state[name].shape), state[name].dtype) for name in sorted(set(names))}
    pending = order_reads(headers, max_shard_size)

    def read(name: str) -> Tensor:
        pending.remove(name)
        tensor = state[name].detach()
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    if not objective.trainer.is_global_zero:
        for name in list(pending) if objective.is_sharded else ():
            read(name)
    failure: Exception | None = None
    if objective.trainer.is_global_zero:
        try:
            file.parent.mkdir(exist_ok=True)
            write_sharded(file, headers, read, metadata, max_shard_size)
        except (ValueError, OSError) as error:
            failure = error
            for name in list(pending) if objective.is_sharded else ():  # the other ranks wait for this one
                read(name)
    message = objective.trainer.strategy.broadcast(failure and str(failure))
    if failure is not None:
        raise failure
    if message is not None:
        raise ValueError(message)


def save_weights(
    file: Path,
    state: Mapping[str, Tensor],
    names: Iterable[str],
    metadata: Mapping[str, str],
    max_shard_size: int = MAX_SHARD_SIZE,
) -> None:
    """Write the named tensors of a state; an interrupted call leaves no file, or the old one.

    Raises:
        ValueError: a tensor is not finite.
    """
    headers = {name: Header(tuple(state[name].shape), state[name].dtype) for name in sorted(set(names))}
    write_sharded(file, headers, state.__getitem__, metadata, max_shard_size)


@contextmanager
def open_weights(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the tensors of weights by their names, as slices of safetensors: ``[...]`` is a map of one, with its data.

    Args:
        file: a safetensors file, or one in whose place there is an index of shards.

    Raises:
        ValueError: it is missing, incomplete or no safetensors file, or a tensor is in two shards.
    """
    slices: dict[str, Any] = {}
    with ExitStack() as stack:
        for shard in find_shards(file):
            stack.enter_context(_safetensors_errors(shard))
            tensors = stack.enter_context(safe_open(shard, framework="pt"))
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if name in slices:
                    raise ValueError(f"{file}: {name} is in two shards: are they of the same weights?")
                slices[name] = tensors.get_slice(name)
        yield slices


def read_dtype(file: Path) -> str | None:
    """Return the dtype of a file's tensors, ``None`` if they have several.

    Raises:
        ValueError: the file is no safetensors file, or truncated.
    """
    with open_weights(file) as tensors:
        dtypes = {str(tensor.get_dtype()) for tensor in tensors.values()}
    if len(dtypes) != 1:
        return None
    return DTYPE_NAMES.get(dtypes.pop())


def _canonical_state(model: nn.Module) -> dict[str, Tensor]:
    return {canonical_name(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}


def _match(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the names that match one of the patterns.

    >>> sorted(_match(["llm.a", "fusions.b", "projectors.c"], ["llm.*", "fusions.*"]))
    ['fusions.b', 'llm.a']
    """
    names = list(names)
    matches = set[str]()
    for pattern in patterns:
        matches.update(name for name in names if fnmatchcase(name, pattern))
    return matches


def _part_names(names: Iterable[str]) -> list[str]:
    """Return the sorted parts of parameter names: ``projectors.face`` of ``projectors.face.layers.0.weight``."""
    return sorted({".".join(name.split(".")[:2]) for name in names})


@contextmanager
def _safetensors_errors(file: Path) -> Iterator[None]:
    """Raise errors of safetensors as ``ValueError`` with the name of the file."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"{file} is not a complete safetensors file ({error}); copy it again. Pickles are never read."
        ) from error
