"""Arrow files: written batch by batch, and read as tables in memory that all processes share."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"int32": np.int32, "int64": np.int64, "uint64": np.uint64, "double": np.float64}


class ArrowFile:
    """A table that is written batch by batch, as an Arrow IPC file without compression.

    Args:
        file: new.
        columns: name -> Arrow type, such as ``int32`` or ``binary``.
    """

    def __init__(self, file: Path, columns: Mapping[str, str]) -> None:
        import pyarrow

        self.schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in columns.items()])
        self.sink = file.open("wb")
        self.writer = pyarrow.ipc.new_file(self.sink, self.schema)
        self.num_rows = 0

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows."""
        import pyarrow

        if not rows:
            return
        arrays = []
        for field, values in zip(self.schema, zip(*rows, strict=True), strict=True):
            buffers = [None, *map(pyarrow.py_buffer, _to_buffers(values, str(field.type)))]
            arrays.append(pyarrow.Array.from_buffers(field.type, len(rows), buffers))  # ``array`` would import pandas
        self.writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema))
        self.num_rows += len(rows)

    def close(self) -> None:
        """Write the rest to the disk."""
        self.writer.close()
        os.fsync(self.sink.fileno())
        self.sink.close()


def _to_buffers(values: Sequence[Any], kind: str) -> list[Any]:
    """Return the buffers of a column: its numbers, or where each value begins and all values."""
    if kind != "binary":
        return [np.array(values, DTYPES[kind])]
    starts = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=starts[1:])
    return [starts, b"".join(values)]


def open_table(file: Path) -> Any:
    """Return a table whose pages are read when they are needed, and shared by all processes."""
    import pyarrow

    options = pyarrow.ipc.IpcReadOptions(use_threads=False)  # threads would not survive the fork of a worker
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(file)), options=options).read_all()
