"""Mapping official keys to our parameter names."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
