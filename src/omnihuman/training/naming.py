"""Names of the folders of variants: cells of sweeps and studies, and runs from a base."""

import hashlib
import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from omnihuman.overrides import Override, parse_override

LOCATED_KEYS = ("experiment", "size", "runs")
"""Keys that a run's folder shows without a variant: ``<runs>/<size>/<experiment>``."""

MAX_NAME = 120
"""Bytes of a folder's name; file systems allow 255."""

WORD = re.compile(r"[^\s,:;=(){}\[\]'\"]+")
"""A path or another word within a value, which may be a list or a mapping."""


def name_cell(overrides: Sequence[str], params: Mapping[str, str] | None, prefix: str | None = None) -> str | None:
    """Return the name of a cell of a sweep, from the overrides that were swept; ``None`` without any.

    Args:
        overrides: of the cell.
        params: the sweep, key -> its values: ``hydra.sweeper.params``.
        prefix: of the name: the ``variant`` of the command line.

    >>> name_cell(["+experiment=x", "lr=1", "base=/m/b"], {"base": "/m/a,/m/b", "lr": "1,2"})
    'base=b,lr=1'
    """
    swept = {parse_override(f"{key}={values}").key: values for key, values in (params or {}).items()}
    parts = []
    for override in map(parse_override, overrides):
        if override.key in swept and not override.is_below(*LOCATED_KEYS):
            parts.append(_format(override, swept[override.key]))
    return build_folder_name([prefix or "", *sorted(parts)])


def name_overrides(overrides: Iterable[Override]) -> str | None:
    """Return the name of a variant with these overrides, in their order; ``None`` without any."""
    return build_folder_name(_format(override, override.value) for override in overrides)


def build_folder_name(parts: Iterable[str]) -> str | None:
    """Return a folder's name from its parts: on one level, and cut with a hash where it is long.

    >>> build_folder_name(["study.cell", "", "seed=1"])
    'study.cell,seed=1'
    """
    name = ",".join(filter(None, parts)).replace("/", ".")
    if len(name.encode()) > MAX_NAME:
        name = f"{name.encode()[:100].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name or None


def _format(override: Override, values: str) -> str:
    """Return an override as part of a folder's name: without quotes, and with paths from the folder of all values."""
    words = WORD.findall(values)
    key, equals, value = override.text.partition("=")
    value = re.sub(r"[\s'\"\\]", "", WORD.sub(lambda match: _shorten(match[0], words), value))
    return f"{key.lstrip('+')}{equals}{value}"


def _shorten(word: str, words: Iterable[str]) -> str:
    """Return a path from the folder that contains all of the paths, and another word as it is.

    >>> _shorten("/m/a/train.json", ["/m/a/train.json", "/m/b/train.json"]), _shorten("mine/", ["mine/"])
    ('a/train.json', 'mine')
    """
    if "/" not in word:
        return word
    kind = os.path.isabs(word)
    folders = [os.path.dirname(os.path.normpath(other)) for other in words if os.path.isabs(other) == kind]
    return PurePath(os.path.normpath(word)).relative_to(os.path.commonpath(folders)).as_posix()
