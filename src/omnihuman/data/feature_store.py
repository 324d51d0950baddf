"""A folder of features by key, of limited size: those that were used least recently make room."""

import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save  # to bytes: its files would be readable for the owner alone

from omnihuman.data.shards import parse_member
from omnihuman.types import Features

log = logging.getLogger(__name__)

NAME = re.compile(r"[0-9a-f]{64}")
"""Name of an entry, below a folder of its first two digits."""

NOTES = "media"
"""Folder of the hashes of media files."""

SCAN_EVERY = 32
"""Entries of this process after which the sizes of all are read again: other processes write as well."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the store.

    Attributes:
        path: of the file.
        size: bytes.
        used: seconds since the epoch of the last use.
    """

    path: Path
    size: int
    used: float


class FeatureStore:
    """A folder of features by key. Several processes may use it at once, and it is safe to delete.

    Args:
        folder: created on the first write.
        max_bytes: of all features; ``None`` for no limit. Several processes that write at once may exceed it a little.

    >>> store = FeatureStore(Path("/nowhere"))
    >>> store.load("ab12") is None
    True
    """

    def __init__(self, folder: Path, max_bytes: float | None = None) -> None:
        self.folder, self.max_bytes, self.start = folder, max_bytes, time.time()
        self._size = 0
        self._saves = 0

    def hash_content(self, file: Path) -> str:
        """Return the SHA-256 of a file or folder; not computed again while path, size and time stay the same.

        Of a member of a shard, whose path has a checksum, it is that of the path.
        """
        if parse_member(file) is not None:
            return hashlib.sha256(str(file).encode()).hexdigest()
        files = sorted(path for path in file.rglob("*") if path.is_file()) if file.is_dir() else [file]
        stats = []
        for path in files:
            stat = path.stat()
            stats.append((str(path), stat.st_size, stat.st_mtime_ns))
        note = self._path(hash_value(stats), NOTES)
        if note.is_file():
            text = note.read_text()
            if len(text) == 64:
                return text
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        self._write(note, lambda partial: partial.write_text(digest.hexdigest()))
        return digest.hexdigest()

    def has(self, key: str) -> bool:
        """Return whether intact features have this key; a broken file is removed."""
        return self._open(key, lambda entry: True) is not None

    def load(self, key: str) -> tuple[Features, list[float]] | None:
        """Return the features of one sample and the seconds of its frames; ``None`` if missing or broken."""
        return self._open(key, _read_features)

    def save(self, key: str, features: Features, times: Sequence[float]) -> bool:
        """Save the features ``[1 T N D]`` of one sample, with the seconds of its frames.

        Returns:
            False if they do not fit: everything else in the store was used since it was opened.
        """
        parts = [features, *features.levels]
        tensors = {}
        for number, part in enumerate(parts):
            tensors[f"tokens.{number}"] = part.tokens.contiguous()
            tensors[f"mask.{number}"] = part.mask.contiguous()
        metadata = {"grids": json.dumps([part.grid for part in parts]), "times": json.dumps(list(times))}
        content = save(tensors, metadata)
        if not self._make_room(len(content)):
            return False
        self._write(self._path(key), lambda partial: partial.write_bytes(content))
        return True

    def list_entries(self) -> Iterator[Entry]:
        """Yield the features in the folder, without the notes on media files."""
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            for path in folder.iterdir():
                if NAME.fullmatch(path.name):
                    try:
                        stat = path.stat()
                    except FileNotFoundError:  # another process has removed it
                        continue
                    yield Entry(path, stat.st_size, max(stat.st_atime, stat.st_mtime))

    def remove(self, unused_since: float = float("inf")) -> tuple[int, int]:
        """Remove the features that were not used since a moment, and all notes on media with the last of them.

        Args:
            unused_since: seconds since the epoch; infinite removes all.

        Returns:
            the number of features that are removed, and their bytes.
        """
        num_removed = num_bytes = 0
        for entry in self.list_entries():
            if entry.used < unused_since:
                entry.path.unlink(missing_ok=True)
                num_removed, num_bytes = num_removed + 1, num_bytes + entry.size
        if unused_since == float("inf"):
            for note in self.folder.glob(f"{NOTES}/??/*"):
                note.unlink(missing_ok=True)
            for partial in self.folder.glob("**/*.partial"):
                partial.unlink(missing_ok=True)
        return num_removed, num_bytes

    def _make_room(self, num_bytes: int) -> bool:
        """Remove the features that were used least recently, until so many bytes more are below the limit."""
        if self.max_bytes is None:
            return True
        is_due = self._saves % SCAN_EVERY == 0 or self._size + num_bytes > self.max_bytes
        self._saves, self._size = self._saves + 1, self._size + num_bytes
        if not is_due:
            return True
        entries = sorted(self.list_entries(), key=lambda entry: entry.used)
        self._size = num_bytes + sum(entry.size for entry in entries)
        for entry in entries:
            if self._size <= self.max_bytes or entry.used >= self.start:
                break
            entry.path.unlink(missing_ok=True)
            self._size -= entry.size
        is_below = self._size <= self.max_bytes
        if not is_below:
            self._size -= num_bytes
        return is_below

    def _path(self, key: str, *folders: str) -> Path:
        return self.folder.joinpath(*folders, key[:2], key)

    def _open(self, key: str, use: Callable[[Any], _T]) -> _T | None:
        path = self._path(key)
        try:
            with safe_open(path, "pt") as entry:  # checks the length that its header promises
                result = use(entry)
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # many disks note no reads
            return result
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("%s is broken (%s) and is computed again", path, error)
            path.unlink(missing_ok=True)
            return None

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write under a temporary name first, so that no process reads half a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _read_features(entry: Any) -> tuple[Features, list[float]]:
    metadata = entry.metadata()
    parts = []
    for number, grid in enumerate(json.loads(metadata["grids"])):
        tokens, mask = entry.get_tensor(f"tokens.{number}"), entry.get_tensor(f"mask.{number}")
        parts.append(Features(tokens, mask, None if grid is None else (grid[0], grid[1])))
    return replace(parts[0], levels=tuple(parts[1:])), json.loads(metadata["times"])


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a value that JSON can write; of others, its ``repr`` counts."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
