"""Judgements on disk: asked once, scored again as often as one likes, shipped with the results."""

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
    """What a judge replied, and when and how: a row of the cache. What it was asked is in the key only.

    Attributes:
        text: in its own words; they may quote the texts that it judged.
        parsed: the checked reply as JSON, for readers of the file.
        tokens_in: of the prompt, 0 where the endpoint does not say.
        tokens_out: of the reply.
        model: which the endpoint says answered.
        fingerprint: of the endpoint's system.
        time: of the reply, UTC.
        seconds: that it took.
        form: how the reply's form was asked for.
    """

    text: str
    parsed: str
    tokens_in: int
    tokens_out: int
    model: str
    fingerprint: str
    time: str
    seconds: float
    form: str


COLUMNS = [each.name for each in fields(Judgement)]


class Cache:
    """Key -> judgement in one sqlite file, for any number of threads and processes.

    On the standard library: diskcache stands still since 2023 and loads pickles even through its JSONDisk
    (CVE-2025-69872; tried: a doctored row runs code), which rules out files that others ship; forks of it are weeks
    old, and caches of HTTP know no protocols. Here is nothing but text and numbers in columns.

    Args:
        path: of the file; made with the first judgement.
        read_only: the file has to be there and stays as it is.

    Raises:
        ValueError: ``path`` is no cache of judgements, or is not there although it is only read.

    >>> Cache("judgements.sqlite").get(["5f"])
    {}
    """

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path, self.read_only = Path(path), read_only
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        if read_only and not self.path.is_file():
            raise ValueError(f"cache={path}: there is no such file; judge with mode=live first, or name the right one.")

    def get(self, keys: Iterable[str]) -> dict[str, Judgement]:
        """The judgements that are there, by key."""
        if self._open is None and not self.path.is_file():
            return {}
        found: dict[str, Judgement] = {}
        with self._connection() as connection:
            for key in keys:
                row = connection.execute(
                    f"SELECT {', '.join(COLUMNS)} FROM judgements WHERE key = ?",
                    (key,),
                ).fetchone()
                if row:
                    found[key] = Judgement(*row)
        return found

    def put(self, key: str, protocol: str, judgement: Judgement) -> None:
        """Keep a judgement, in the place of an earlier one; it is on disk when this returns."""
        marks = ", ".join("?" * (2 + len(COLUMNS)))
        with self._connection() as connection, connection:
            connection.execute(
                f"INSERT OR REPLACE INTO judgements VALUES ({marks})",
                (key, protocol, *astuple(judgement)),
            )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open = None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:  # one connection, one thread at a time; among processes sqlite's own lock holds
            try:
                if self._open is None:
                    self._open = self._connect()
                yield self._open
            except (sqlite3.DatabaseError, OSError) as error:
                raise ValueError(f"cache={self.path}: this is no readable cache of judgements ({error}).") from error

    def _connect(self) -> sqlite3.Connection:
        if self.read_only:
            where = f"{self.path.resolve().as_uri()}?mode=ro"
            return sqlite3.connect(where, uri=True, timeout=60, check_same_thread=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # no write-ahead log: it would make the cache three files, of which people ship one
        connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
        kinds = ", ".join(f"{each.name} {_SQL[each.type]} NOT NULL" for each in fields(Judgement))
        with connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, protocol TEXT NOT NULL, {kinds})"
            )
        return connection


_SQL: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "REAL"}


def compact(value: Any) -> str:
    """JSON that is the same for the same content: what keys are made of."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
