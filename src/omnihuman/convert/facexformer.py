"""Names of FaceXFormer's official parameters -> those of our encoder."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from omnihuman.convert.checkpoint import KeyReport, assign, first_match, unpickle

FILE = "ckpts/model.pt"
"""Where the official repository keeps its checkpoint."""

ENTRY = "state_dict_backbone"
"""The part of the checkpoint that holds the whole model."""

RENAMED: dict[str, str] = {
    r"backbone\.0\.(.+)": r"features.\1",
    r"linear_c\.(\d+)\.proj\.(.+)": r"linears.\1.\2",
    r"linear_fuse\.(.+)": r"fuse.\1",
}
"""Pattern of an official key -> our name."""

DROPPED: dict[str, str] = {
    "*.relative_position_index": "a table of places, computed from the window's size",
    "backbone.1.*": "features are read before the final norm",
    "pe_layer.*": "positions that only the decoder adds",
    "face_decoder.*": "the task heads",
}
"""Pattern of an official key that nothing here reads -> why."""


def read(file: str | Path) -> dict[str, Tensor]:
    """The official names with their tensors, from the official file.

    Raises:
        ValueError: it is missing, holds anything but plain tensors and containers, or no FaceXFormer.
    """
    if not Path(file).is_file():
        raise ValueError(f"{file}: there is no such checkpoint; FaceXFormer's stands at {FILE} of its repository.")
    found = unpickle(file)
    state = found.get(ENTRY) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping):
        has = list(found)[:3] if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{file} has no {ENTRY!r}, it has {has}: is it FaceXFormer's official checkpoint?")
    return dict(state)


def to_ours(key: str) -> str | None:
    """Our name of an official parameter, ``None`` if our encoder could not have it.

    >>> to_ours("linear_c.3.proj.bias"), to_ours("backbone.0.1.0.attn.qkv.weight")
    ('linears.3.bias', 'features.1.0.attn.qkv.weight')
    """
    found = ((re.fullmatch(pattern, key), name) for pattern, name in RENAMED.items())
    return next((match.expand(name) for match, name in found if match), None)


def from_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
    """An official state dict -> ours, and what became of each key; see ``report``."""
    found = report(state)
    return {name: state[key] for key, name in found.taken.items()}, found


def report(keys: Iterable[str]) -> KeyReport:
    """What becomes of every official key.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``.
    """
    return assign(keys, to_ours, lambda key: first_match(key, DROPPED), "FaceXFormer")
