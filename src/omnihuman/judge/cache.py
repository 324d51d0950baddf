"""Cache of judgements on disk: judged once, scored again at no cost, published with the results."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Judgement:
    """A judge's reply with its metadata: a row of the cache. The prompt is only in the key.

    Attributes:
        text: raw reply; it may quote the judged texts.
        parsed: validated reply as JSON, for readers of the file.
        tokens_in: prompt tokens, 0 if the endpoint does not report them.
        tokens_out: reply tokens.
        model: that replied, according to the endpoint.
        fingerprint: of the endpoint's system.
        time: of the reply, UTC.
        seconds: of the request.
        response_format: that was requested.
    """

    text: str
    parsed: str
    tokens_in: int
    tokens_out: int
    model: str
    fingerprint: str
    time: str
    seconds: float
    response_format: str


SQL_TYPES: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "REAL"}
COLUMNS = {column.name: SQL_TYPES[column.type] for column in fields(Judgement)}


class Cache:
    """Key -> judgement in a sqlite file, for any number of threads and processes.

    It uses the standard library only. diskcache has had no release since 2023 and unpickles data even through its
    JSONDisk (CVE-2025-69872; verified: a manipulated row runs code), which rules it out for published files. This cache
    contains nothing but text and numbers in columns.

    Args:
        path: of the file, created with the first judgement.
        read_only: the file must exist and is not changed.

    Raises:
        ValueError: the file is not a cache of judgements, or does not exist although ``read_only``.

    >>> Cache("judgements.sqlite").get(["5f"])
    {}
    """

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path, self.read_only = Path(path), read_only
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        if read_only and not self.path.is_file():
            raise ValueError(f"cache={path}: there is no such file; judge with mode=live first, or correct the path.")

    def get(self, keys: Iterable[str]) -> dict[str, Judgement]:
        """Return the cached judgements by key."""
        if self._connection is None and not self.path.is_file():
            return {}
        statement = f"SELECT {', '.join(COLUMNS)} FROM judgements WHERE key = ?"
        judgements: dict[str, Judgement] = {}
        with self._open() as connection:
            for key in keys:
                row = connection.execute(statement, (key,)).fetchone()
                if row:
                    judgements[key] = Judgement(*row)
        return judgements

    def put(self, key: str, protocol: str, judgement: Judgement) -> None:
        """Write a judgement, replacing an earlier one; it is on disk when this returns."""
        placeholders = ", ".join("?" * (2 + len(COLUMNS)))
        with self._open() as connection, connection:
            connection.execute(
                f"INSERT OR REPLACE INTO judgements VALUES ({placeholders})", (key, protocol, *astuple(judgement))
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:  # one connection, one thread at a time; between processes sqlite locks the file
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except (sqlite3.DatabaseError, OSError) as error:
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    raise ValueError(f"cache={self.path}: the disk is full; make room, and try again.") from error
                raise ValueError(f"cache={self.path}: this is not a readable cache of judgements ({error}).") from error

    def _connect(self) -> sqlite3.Connection:
        if self.read_only:
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
            return sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # No write-ahead log: it would split the cache into three files, of which people publish one.
        connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
        columns = ", ".join(f"{name} {sql_type} NOT NULL" for name, sql_type in COLUMNS.items())
        with connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, protocol TEXT NOT NULL, {columns})"
            )
        return connection


def canonical_json(value: Any) -> str:
    """Format a value as JSON that is equal for equal content, for cache keys."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
