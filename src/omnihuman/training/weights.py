"""weights.safetensors: what was trained anywhere in the chain, by the model's own names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from omnihuman.training.trainable import plain_name


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What became of the keys of one weights file.

    Attributes:
        file: where they came from.
        loaded: names that now hold the file's values.
        left: names that the file has, but ``only`` does not ask for.
    """

    file: Path
    loaded: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        parts = sorted({".".join(name.split(".")[:2]) for name in self.loaded})
        return f"{self.file}: {len(self.loaded)} tensors loaded ({', '.join(parts)}), {len(self.left)} not asked for"


def load_weights(
    model: nn.Module, file: Path, only: str | Sequence[str] = "*", without: Sequence[str] = ()
) -> KeyReport:
    """Copy the tensors of a file into the parameters and buffers of the same names.

    Args:
        model: receives them.
        file: a safetensors file.
        only: pattern or patterns of the names wanted.
        without: patterns of names that are not wanted all the same.

    Raises:
        ValueError: the file is missing or no safetensors file, a name is foreign to the model, a shape differs, the
            file lacks part of what a pattern means, or a pattern matches nothing.
    """
    state = _read(file)
    patterns = [only] if isinstance(only, str) else list(only)
    wanted = {name for name in state if any(fnmatchcase(name, pattern) for pattern in patterns)}
    wanted = {name for name in wanted if not any(fnmatchcase(name, pattern) for pattern in without)}
    own = {canonical(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in wanted):
            have = sorted({".".join(name.split(".")[:2]) for name in state})
            raise ValueError(f"{file}: nothing matches {pattern!r}; the file holds {have}.")
    if foreign := sorted(wanted - set(own)):
        raise ValueError(
            f"{file}: {len(foreign)} keys are foreign to this model, the first {foreign[:3]}: was the file trained "
            "with other parts? Choose the same parts, or narrow `only`."
        )
    specific = [pattern for pattern in patterns if pattern != "*"]
    expected = {name for name in own if any(fnmatchcase(name, pattern) for pattern in specific)}
    if missing := sorted(expected - set(state)):
        raise ValueError(
            f"{file}: {len(missing)} of the keys that {specific} asks for are missing, the first {missing[:3]}."
        )
    for name in sorted(wanted):
        if state[name].shape != own[name].shape:
            raise ValueError(f"{file}: {name} is {tuple(state[name].shape)} there, {tuple(own[name].shape)} here.")
    fill(model, {name: state[name] for name in wanted})
    return KeyReport(file, tuple(sorted(wanted)), tuple(sorted(set(state) - wanted)))


def fill(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into the parameters and buffers of these names; what has no memory becomes its value."""
    homes: dict[int, list[tuple[nn.Module, str]]] = {}  # a tied parameter has several
    for holder in model.modules():
        for key, parameter in holder.named_parameters(recurse=False):
            homes.setdefault(id(parameter), []).append((holder, key))
    own = {canonical(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    for name, value in values.items():
        if not own[name].is_meta:
            own[name].data.copy_(value)
            continue
        parameter = nn.Parameter(value.to(own[name].dtype), requires_grad=own[name].requires_grad)
        for holder, key in homes[id(own[name])]:
            holder.register_parameter(key, parameter)


def save_weights(file: Path, state: Mapping[str, Tensor], names: Iterable[str], metadata: Mapping[str, str]) -> None:
    """Write the named tensors of a state; the file appears whole or not at all."""
    tensors = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(set(names))}
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, metadata=dict(metadata))
    partial.replace(file)


def canonical(name: str) -> str:
    """A name as weights files hold it: LoRA's wrapping of a base weight does not change what the weight is called."""
    return plain_name(name).replace(".base_layer.", ".")


def dtype_of(file: Path) -> str | None:
    """The dtype of a file's tensors, ``None`` where they have several.

    Raises:
        ValueError: it is no safetensors file, or cut short.
    """
    with _told(file), safe_open(file, framework="pt") as tensors:
        found = {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118 (no mapping)
    return {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(found.pop()) if len(found) == 1 else None


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such weights file.")
    with _told(file):
        return load_file(file)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"{file} is not a whole safetensors file ({error}); copy it again. Pickles are never read."
        ) from error
