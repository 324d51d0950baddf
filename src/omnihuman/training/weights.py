"""weights.safetensors: the parameters that a chain has trained, by their names in the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from omnihuman.model.trainable import canonical_name
from omnihuman.nn.finite import check_finite
from omnihuman.training.safetensors_writer import Header, write_safetensors

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
    model: nn.Module, file: Path, only: str | Sequence[str] = "*", without: Sequence[str] = ()
) -> KeyReport:
    """Copy the tensors of a file into the parameters and buffers of the same names.

    Args:
        model: its parameters and buffers are changed.
        file: a safetensors file.
        only: pattern or patterns of the names to load.
        without: patterns of names that are not loaded, even if ``only`` matches them.

    Raises:
        ValueError: the file is missing or no safetensors file, a name is not in the model, a shape differs, a parameter
            that a pattern matches is not in the file, a pattern matches nothing, or a tensor is not finite.
    """
    if not file.is_file():
        raise ValueError(f"{file}: there is no such weights file.")
    patterns = [only] if isinstance(only, str) else list(only)
    with _safetensors_errors(file), safe_open(file, framework="pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        selected = _select(model, file, shapes, patterns, without)
        copy_tensors(model, _read_finite(file, tensors, selected))
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


def _read_finite(file: Path, tensors: Any, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        tensor = tensors.get_tensor(name)
        check_finite(file, name, tensor)
        yield name, tensor


def copy_tensors(model: nn.Module, values: Iterable[tuple[str, Tensor]]) -> None:
    """Copy values into the parameters and buffers of these names; a parameter on the meta device is replaced."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}  # a tied parameter has several
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module, key))
    targets = _canonical_state(model)
    for name, value in values:
        target = targets[name]
        if not target.is_meta:
            target.data.copy_(value)
            continue
        parameter = nn.Parameter(value.to(target.dtype), requires_grad=target.requires_grad)
        for module, key in owners[id(target)]:
            module.register_parameter(key, parameter)


def write_weights(file: Path, objective: "Objective", names: Iterable[str], metadata: Mapping[str, str]) -> None:
    """Write the named tensors of the model of an objective in the main process; every rank must call it.

    Raises:
        ValueError: a tensor is not finite.
    """
    state = {canonical_name(name): value for name, value in _gather_state(objective).items()}
    if objective.trainer.is_global_zero:
        file.parent.mkdir(exist_ok=True)
        save_weights(file, state, names, metadata)


def _gather_state(objective: "Objective") -> dict[str, Any]:
    """Return the model's state, gathered on rank 0 if it is sharded."""
    if not objective.is_sharded:
        return dict(objective.model.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(objective.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def save_weights(file: Path, state: Mapping[str, Tensor], names: Iterable[str], metadata: Mapping[str, str]) -> None:
    """Write the named tensors of a state; an interrupted call leaves no file, or the old one.

    Raises:
        ValueError: a tensor is not finite.
    """
    headers = {name: Header(tuple(state[name].shape), state[name].dtype) for name in sorted(set(names))}
    write_safetensors(file, headers, state.__getitem__, metadata)


def read_dtype(file: Path) -> str | None:
    """Return the dtype of a file's tensors, ``None`` if they have several.

    Raises:
        ValueError: the file is no safetensors file, or truncated.
    """
    with _safetensors_errors(file), safe_open(file, framework="pt") as tensors:
        dtypes = {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118 (no mapping)
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
