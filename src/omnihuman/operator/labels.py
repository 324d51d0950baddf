"""Labels: values of a clip's records, or of its path, as columns."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from omnihuman.operator.base import Operator, Outcome, Row


class Labels(Operator):
    """Records -> columns: the label that a data set gives a clip, and the data set itself.

    Args:
        values: column -> ``answer``, the last answer of a record; ``folder``, the first folder of the path, which is
            the data set where the root holds several; or a key of the record, such as ``meta.person``.
        tasks: of the records that are read; empty: all.

    Raises:
        ValueError: there is no column.
    """

    def __init__(self, values: Mapping[str, str], tasks: Sequence[str] = ()) -> None:
        if not values:
            raise ValueError("labels: values={} names no column: values={label: answer, dataset: folder}.")
        self.values, self.tasks = dict(values), list(tasks)
        self.reads = {"records": pa.list_(pa.string())}
        self.writes = dict.fromkeys(self.values, pa.string())

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            records = [json.loads(text) for text in row["records"]]
            if self.tasks:
                records = [record for record in records if record.get("task") in self.tasks]
            yield {column: _find(row, records, key) for column, key in self.values.items()}


def _find(row: Row, records: Sequence[Mapping[str, Any]], key: str) -> str | None:
    """Return the value of the first record that has it, ``None`` without one."""
    if key == "folder":
        parents = PurePosixPath(row["source"]).parts[:-1]
        return parents[0] if parents else None
    for record in records:
        value = _read(record, key)
        if value is not None:
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return None


def _read(record: Mapping[str, Any], key: str) -> Any:
    if key == "answer":
        return record["conversations"][-1]["value"]
    value: Any = record
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
