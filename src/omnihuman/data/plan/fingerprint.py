"""Hashes of what decides a plan besides its records: tokenizer, token counts and code."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.data.plan import codec
from omnihuman.data.plan.planning import Layouts
from omnihuman.data.record import Entry, Record
from omnihuman.modality import SAMPLE_RATE
from omnihuman.nn.tiles import Tiles
from omnihuman.types import FrameCount

PLANNING_CODE = ("data", "source", "modality.py", "template.py", "types.py", "nn/tiles.py")
"""Folders and files of the package whose code decides what is planned."""

HEADER_CODE = ("data/decode", "data/media.py")
"""Those whose code decides what a header holds."""

MAX_FRAMES = 130
MAX_SECONDS = 3600
NUM_PROBES = 400
"""Amounts of audio that token counts are compared at, from one sample to an hour, closer together where it is short."""


def hash_values(value: Any) -> str:
    """Return a hash of plain values, 16 hexadecimal digits; objects count by their class and public attributes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_describe).encode()).hexdigest()[:16]


def _describe(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, {field.name: getattr(value, field.name) for field in fields(value)}]
    if hasattr(value, "__dict__"):
        attributes = {name: entry for name, entry in vars(value).items() if not name.startswith("_")}
        return [f"{type(value).__module__}.{type(value).__qualname__}", attributes]
    return repr(value)


def hash_entries(entries: Iterable[Entry]) -> str:
    """Return a hash of records and of errors in their place."""
    digest = hashlib.sha256()
    for entry in entries:
        if isinstance(entry, Record):
            digest.update(codec.encode_record(entry))
            if entry.faces is not None:
                digest.update(codec.encode_faces(entry.faces))
        else:
            digest.update(json.dumps([entry[0], entry[1].reason, str(entry[1])]).encode())
    return digest.hexdigest()[:16]


def hash_tokenizer(tokenizer: Any) -> str:
    """Return a hash of a tokenizer: all that it makes of texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return hash_values(backend.to_str())
    vocabulary = sorted(tokenizer.get_vocab().items()) if hasattr(tokenizer, "get_vocab") else None
    return hash_values([type(tokenizer).__module__, type(tokenizer).__qualname__, vocabulary, vars(tokenizer)])


def hash_layouts(layouts: Layouts, tiles: Tiles | None) -> str:
    """Return a hash of the tokens that a model makes of frames, audio and tiles: its behaviour, whatever its config."""
    probes: list[tuple[int, int]] = [(frames, 0) for frames in range(MAX_FRAMES)]
    amounts = np.geomspace(1, MAX_SECONDS * SAMPLE_RATE, NUM_PROBES).astype(int).tolist()
    probes += [(0, amount) for amount in amounts]
    probes += [(8, SAMPLE_RATE), (32, 30 * SAMPLE_RATE)]
    for tiling in _list_tilings(tiles):
        probes.append((FrameCount(1 + tiling.rows * tiling.columns, tiling), 0))
    counts: list[Any] = []
    for frames, waveform in probes:
        try:
            counts.append(sorted(layouts({"frames": frames, "waveform": waveform}).items()))
        except ValueError as error:  # more than a part takes
            counts.append(str(error))
    return hash_values(counts)


def _list_tilings(tiles: Tiles | None) -> Iterable[Any]:
    if tiles is None:
        return []
    sizes = product(range(100, 2100, 250), (100, 300, 900, 2000))
    return [tiles.untiled, *(tiles.choose(height, width) for height, width in sizes)]


@lru_cache
def hash_code(*names: str) -> str:
    """Return a hash of folders and files of the package."""
    package = Path(str(files("omnihuman")))
    digest = hashlib.sha256()
    for name in names:
        place = package / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]
