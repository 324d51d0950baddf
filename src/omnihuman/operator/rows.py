"""Rows of many partitions in one Arrow table, of which Python sees a few at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from omnihuman.operator.base import Row

ROWS_AT_ONCE = 4096


class TableRows(Sequence[Row]):
    """Rows that become Python values when they are looked at.

    Args:
        table: of the rows.
        root: folder of the media of the source.
        out: folder of the media that operators have written.
    """

    def __init__(self, table: pa.Table, root: Path, out: Path) -> None:
        self.table, self.root, self.out = table, root, out

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Row]:
        for begin in range(0, len(self), ROWS_AT_ONCE):
            for row in self.table.slice(begin, ROWS_AT_ONCE).to_pylist():
                yield locate(row, self.root, self.out)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return TableRows(self.table.take(range(len(self))[index]), self.root, self.out)
        (row,) = self.table.slice(range(len(self))[index], 1).to_pylist()
        return locate(row, self.root, self.out)


def locate(row: Row, root: Path, out: Path) -> Row:
    """Return a row with the file and the span to open: a file that an operator has written begins with the clip."""
    media = row.get("media")
    if not media:
        return row | {"file": (root / row["source"]).absolute()}
    return row | {"file": (out / media).absolute(), "start": 0.0, "end": None, "source_start": row["start"]}


def select_columns(rows: Sequence[Row], *names: str) -> pa.Table:
    """Return columns of rows as a table, without a detour over Python values where they are in one."""
    if isinstance(rows, TableRows):
        return rows.table.select(list(names))
    columns: dict[str, Any] = {}
    for name in names:
        columns[name] = [row[name] for row in rows]
    return pa.table(columns)
