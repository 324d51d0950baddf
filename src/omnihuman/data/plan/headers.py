"""Headers of media files, which are read once for all runs."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.decode.header import Header
from omnihuman.data.plan import codec
from omnihuman.data.plan.arrow import ArrowFile, open_table
from omnihuman.data.plan.stat import Stat, stat_file

COLUMNS = {"hash": "uint64", "file": "binary", "size": "int64", "mtime_ns": "int64", "header": "binary"}
"""A header is JSON; of a file that cannot be used, reason and message."""

MACHINE_REASONS = frozenset({"missing_file", "unavailable", "timeout", "unexpected_error"})
"""Reasons that depend on the machine and the moment: what has them is looked at again."""

MAX_PENDING = 2**15
"""Headers after which they are written."""

Outcome = Header | BadSample


class HeaderStore:
    """The headers of files by path, size and time, in a folder that several processes may use; safe to delete.

    Args:
        folder: of the tables, each sorted by a hash of the paths; created on the first write.
        probe: reads headers of files.
        more: folders of tables that are read only, such as those of an index.
    """

    def __init__(
        self, folder: Path, probe: Callable[[Iterable[Path]], Mapping[Path, Outcome]], more: Iterable[Path] = ()
    ) -> None:
        self.folder, self.probe = folder, probe
        self.pending: dict[Path, tuple[Stat, Outcome]] = {}
        self.tables = list[dict[str, Any]]()
        for place in dict.fromkeys([folder, *more]):
            self.tables += [_open(file) for file in sorted(place.glob("*.arrow"))]

    def __call__(self, files: Iterable[Path]) -> dict[Path, Outcome]:
        """Return the header of each file, or what is wrong with it."""
        stats = {file: stat_file(file) for file in files}
        stored = self._find(stats)
        new = [file for file in stats if file not in stored]
        outcomes = dict(self.probe(new)) if new else {}
        for file, outcome in outcomes.items():
            if not isinstance(outcome, BadSample) or outcome.reason not in MACHINE_REASONS:
                self.pending[file] = (stats[file], outcome)
        if len(self.pending) >= MAX_PENDING:
            self.flush()
        return stored | outcomes

    def add(self, file: Path, outcome: Outcome) -> None:
        """Note the header of a file that holds the same as another one."""
        self.pending[file] = (stat_file(file), outcome)

    def flush(self) -> None:
        """Write the new headers."""
        if not self.pending:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for file, (stat, outcome) in self.pending.items():
            rows.append((_hash(file), os.fsencode(file), *stat, _encode(outcome)))
        partial = self.folder / f"{uuid.uuid4().hex}.partial"
        table = ArrowFile(partial, COLUMNS)
        table.write(sorted(rows))
        table.close()
        target = partial.with_suffix(".arrow")
        partial.replace(target)
        self.tables.append(_open(target))
        self.pending = {}

    def _find(self, stats: Mapping[Path, Stat]) -> dict[Path, Outcome]:
        """Return the outcomes of unchanged files."""
        outcomes = {}
        for file in self.pending.keys() & stats.keys():
            stat, outcome = self.pending[file]
            if stats[file] == stat:
                outcomes[file] = outcome
        files = [file for file in stats if file not in outcomes]
        hashes = np.array([_hash(file) for file in files], np.uint64)
        for table in self.tables:
            places = np.searchsorted(table["hash"], hashes)
            places[places == len(table["hash"])] = 0
            for number in np.flatnonzero(table["hash"][places] == hashes).tolist():
                file, place = files[number], int(places[number])
                row = tuple(table[name][place].as_py() for name in ("file", "size", "mtime_ns"))
                if row == (os.fsencode(file), *stats[file]):
                    outcomes[file] = _decode(table["header"][place].as_py())
        return outcomes


def _open(file: Path) -> dict[str, Any]:
    table = open_table(file)
    return {name: table.column(name) for name in table.column_names} | {"hash": table.column("hash").to_numpy()}


def _hash(file: Path) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(file), digest_size=8).digest(), "little")


def _encode(outcome: Outcome) -> bytes:
    if isinstance(outcome, BadSample):
        return json.dumps([outcome.reason, str(outcome)]).encode()
    return codec.encode_header(outcome)


def _decode(text: bytes) -> Outcome:
    return BadSample(*json.loads(text)) if text.startswith(b"[") else codec.decode_header(text)
