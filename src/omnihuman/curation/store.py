"""Partitions on disk: one Parquet file for each operator and partition, whole or absent."""

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnihuman.operator.base import IDENTITY, Columns

OUTCOME: Columns = {
    "status": pa.string(),
    "operator": pa.string(),
    "why": pa.string(),
    "detail": pa.string(),
    "parent": pa.int64(),
}
"""Columns of every row: live, dropped or failed; where and why it ended; and its row number in the partition above."""

COST = b"omnihuman.cost"
"""Key of the cost in the footer of a partition."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def make_id(digest: str, start: float | None, end: float | None, track: int | None) -> str:
    """Return the id of a row, which depends on content alone: never on a name of a file or a counter.

    >>> make_id("ab", 0.0, None, None)
    '86f1001824d5f5d585c5'
    """
    content = json.dumps([digest, start, end, track])
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def write_whole(path: Path, content: bytes | Callable[[IO[bytes]], None]) -> None:
    """Write a file that is whole or absent, whatever stops the program or the machine.

    Args:
        path: of the file.
        content: its bytes, or a function that writes them.

    Raises:
        ValueError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # of the name
        finally:
            os.close(descriptor)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = "the disk is full" if error.errno in NO_SPACE else f"it cannot be written ({error.strerror})"
        raise ValueError(f"{path}: {reason}; make room and give the same command: finished partitions stay.") from error


def write_partition(path: Path, table: pa.Table, cost: Mapping[str, float]) -> None:
    """Write a partition with its cost in the footer.

    Raises:
        ValueError: the disk is full, or the folder cannot be written.
    """
    write_table(path, [table], cost)


def write_table(path: Path, tables: Iterable[pa.Table], cost: Mapping[str, float]) -> None:
    """Write tables of one schema, at least one, as the row groups of a file with a cost in its footer.

    Raises:
        ValueError: the disk is full, or the folder cannot be written.
    """
    metadata = {COST: json.dumps({key: round(value, 6) for key, value in cost.items()})}

    def write(file: IO[bytes]) -> None:
        remaining = iter(tables)
        first = next(remaining).replace_schema_metadata(metadata)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for table in itertools.chain((first,), remaining):
                writer.write_table(table.replace_schema_metadata(metadata))

    write_whole(path, write)


def read_cost(path: Path) -> dict[str, float]:
    """Return the cost in the footer of a partition."""
    metadata = pq.read_schema(path).metadata or {}
    cost: dict[str, float] = json.loads(metadata.get(COST, b"{}"))
    return cost


def read_partition(files: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """Return the rows of the last of the partition's files, with columns that it or files above it have written.

    A column is stored once, by the operator that wrote it: rows name their parents in the file above.

    Args:
        files: of one partition, from the source down.
        columns: besides those of every row.
    """
    fixed = [*IDENTITY, *OUTCOME]
    result = pq.read_table(files[-1], columns=fixed)
    remaining = [name for name in dict.fromkeys(columns) if name not in fixed]
    index = None
    for file in reversed(files):
        names = [name for name in remaining if name in pq.read_schema(file).names]
        part = pq.read_table(file, columns=[*names, "parent"])
        if index is not None:
            part = part.take(index)
        for name in names:
            result = result.append_column(part.schema.field(name), part[name])
            remaining.remove(name)
        index = part["parent"]
    assert not remaining, f"{files[-1]}: no operator has written {remaining}"
    return result.select([*fixed, *(name for name in dict.fromkeys(columns) if name not in fixed)])


def build_table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> pa.Table:
    """Return rows as a table, which has its schema without rows as well; values that a row lacks are null."""
    schema = pa.schema(list({**IDENTITY, **OUTCOME, **columns}.items()))
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
