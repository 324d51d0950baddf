"""Reading an official checkpoint, and what becomes of its keys."""

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What became of every official key.

    Attributes:
        taken: official key -> our name.
        dropped: official key -> why nothing reads it.
    """

    taken: Mapping[str, str]
    dropped: Mapping[str, str]


def unpickle(file: str | Path, mapped: bool = False) -> object:
    """What ``torch.save`` wrote into a file, if that is plain tensors, numbers and containers.

    Args:
        file: to read.
        mapped: leave tensors on the disk until they are read, where the file allows it (older ones do not).

    Raises:
        ValueError: it is missing, cut short, or holds anything else: unpickling could then run code.
    """
    if not Path(file).is_file():
        raise ValueError(f"{file}: there is no such checkpoint.")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped and is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        lines = str(error).splitlines() or [type(error).__name__]  # torch goes on with advice on how to read it anyway
        why = next((line.strip() for line in lines if "GLOBAL" in line), lines[0])
        raise ValueError(
            f"{file} is no plain checkpoint, other pickles are never read. If you trust it, save its state dict alone "
            f"with torch.save. torch.load says: {why}"
        ) from error


def rename(
    state: Mapping[str, Tensor], to_ours: Callable[[str], str | None], why_dropped: Callable[[str], str | None], of: str
) -> tuple[dict[str, Tensor], KeyReport]:
    """An official state dict under our names; see ``assign``."""
    report = assign(state, to_ours, why_dropped, of)
    return {name: state[key] for key, name in report.taken.items()}, report


def assign(
    keys: Iterable[str], to_ours: Callable[[str], str | None], why_dropped: Callable[[str], str | None], of: str
) -> KeyReport:
    """What becomes of every official key; no tensor is needed.

    Args:
        keys: official ones.
        to_ours: our name of an official key, ``None`` if there is none.
        why_dropped: why nothing reads an official key, ``None`` if something does. It is asked first.
        of: whose checkpoint it is, for the message.

    Raises:
        ValueError: a key has neither name nor reason, or two have the same name.
    """
    taken: dict[str, str] = {}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for key in keys:
        if (reason := why_dropped(key)) is not None:
            dropped[key] = reason
        elif (name := to_ours(key)) is not None:
            taken[key] = name
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys of the checkpoint are unknown to {of}, the first is {unknown[0]!r}: "
            "is it an official checkpoint?"
        )
    first: dict[str, str] = {}
    for key, name in taken.items():
        if first.setdefault(name, key) != key:
            raise ValueError(f"the checkpoint holds {name} twice, as {first[name]!r} and as {key!r}: give one of both.")
    return KeyReport(taken, dropped)


def first_match(key: str, patterns: Mapping[str, str]) -> str | None:
    """What stands beside the first pattern that a key matches."""
    return next((why for pattern, why in patterns.items() if fnmatchcase(key, pattern)), None)


def replace_prefix(key: str, prefixes: Mapping[str, str]) -> str | None:
    """The key with its prefix exchanged, ``None`` if it has none of them."""
    return next((new + key[len(old) :] for old, new in prefixes.items() if key.startswith(old)), None)
