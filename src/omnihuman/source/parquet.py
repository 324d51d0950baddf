"""Records as rows of a Parquet file."""

from collections.abc import Iterator
from typing import Any

from omnihuman.source.files import FileSource

ROWS_AT_ONCE = 4096


class ParquetSource(FileSource):
    """The records of a ``.parquet`` file, one a row; a null is a missing key."""

    suffix = ".parquet"

    def entries(self) -> Iterator[tuple[str, Any]]:
        from pyarrow import parquet

        number = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE):
                    for row in batch.to_pylist():
                        yield f"{self.path}[{number}]", {key: value for key, value in row.items() if value is not None}
                        number += 1
        except (ValueError, OSError) as error:  # the errors of pyarrow are among them
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{self.path}: no Parquet file, or cut off ({reason}).") from error
