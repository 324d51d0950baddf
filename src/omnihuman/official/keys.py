"""Loading pickled checkpoints, and mapping official keys to our parameter names."""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The outcome for every official key.

    Attributes:
        names: official key -> our parameter name.
        dropped: official key -> why nothing reads it.
    """

    names: Mapping[str, str]
    dropped: Mapping[str, str]


def load_pickle(file: str | Path, mmap: bool = False) -> object:
    """Load a file of ``torch.save`` that holds plain tensors, numbers and containers.

    Args:
        file: to load.
        mmap: map tensors from disk instead of reading them, if the file format allows it (old formats do not).

    Raises:
        ValueError: the file is missing, cut short, or holds other objects, whose unpickling could run code.
    """
    if not Path(file).is_file():
        raise ValueError(f"checkpoint {file} does not exist.")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} is not a plain checkpoint, and other pickles are never loaded. If you trust it, save its state "
            f"dict alone with torch.save. torch.load reports: {_summarize(error)}"
        ) from error


def _summarize(error: Exception) -> str:
    """Return the line that names the cause: torch's message goes on with advice on how to load the file anyway."""
    lines = str(error).splitlines() or [type(error).__name__]
    for line in lines:
        if "GLOBAL" in line:
            return line.strip()
    return lines[0]


def unwrap(content: object, wrappers: Sequence[str]) -> object:
    """Return the innermost entry below the given wrapper names, tried in their order at every level."""
    while isinstance(content, Mapping):
        names = [name for name in wrappers if name in content]
        if not names:
            break
        content = content[names[0]]
    return content


def rename_state(state: Mapping[str, Tensor], report: KeyReport) -> dict[str, Tensor]:
    """Return the tensors of an official state dict under our parameter names."""
    return {name: state[key] for key, name in report.names.items()}


def build_report(
    keys: Iterable[str],
    map_key: Callable[[str], str | None],
    drop_reason: Callable[[str], str | None],
    source: str,
) -> KeyReport:
    """Map every official key to a parameter name or a reason to drop it; no tensor is needed.

    Args:
        keys: official keys.
        map_key: returns our name of an official key, ``None`` if there is none.
        drop_reason: returns why nothing reads an official key, ``None`` if something does. It is called first.
        source: name of the model family, for the message.

    Raises:
        ValueError: a key has neither name nor reason, or two keys have the same name.
    """
    names: dict[str, str] = {}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for key in keys:
        reason = drop_reason(key)
        name = map_key(key)
        if reason is not None:
            dropped[key] = reason
        elif name is not None:
            names[key] = name
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys of the checkpoint are unknown to {source}, the first is {unknown[0]!r}: "
            "is it an official checkpoint?"
        )
    first: dict[str, str] = {}
    for key, name in names.items():
        if first.setdefault(name, key) != key:
            raise ValueError(f"the checkpoint has {name} twice, as {first[name]!r} and as {key!r}: remove one of them.")
    return KeyReport(names, dropped)


def find_reason(key: str, reasons: Mapping[str, str]) -> str | None:
    """Return the reason of the first glob pattern that matches the key, ``None`` without a match."""
    for pattern, reason in reasons.items():
        if fnmatchcase(key, pattern):
            return reason
    return None


def expand_match(key: str, templates: Mapping[str, str]) -> str | None:
    """Return the expanded template of the first regular expression that matches the whole key, else ``None``."""
    for pattern, template in templates.items():
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(template)
    return None


def replace_prefix(key: str, prefixes: Mapping[str, str]) -> str | None:
    """Return the key with its prefix replaced, ``None`` if it has none of them."""
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return None
