"""Records as rows of a Parquet file."""

from collections.abc import Iterator
from typing import Any

from omnihuman.source.files import FileSource


class ParquetSource(FileSource):
    """The records of a ``.parquet`` file, one a row; a null is a missing key."""

    suffix = ".parquet"

    def entries(self) -> Iterator[tuple[str, Any]]:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError(f'{self.path}: reading it needs pyarrow: pip install "omnihuman[parquet]".') from error
        try:
            rows = parquet.read_table(self.path).to_pylist()
        except (ValueError, OSError) as error:  # the errors of pyarrow are among them
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{self.path}: no Parquet file, or cut off ({reason}).") from error
        for number, row in enumerate(rows):
            yield f"{self.path}[{number}]", {key: value for key, value in row.items() if value is not None}
