"""Records as rows of a Parquet file."""

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from omnihuman.build import build, compose_part
from omnihuman.source.parquet import ParquetSource

from .conftest import build_entry, read_entries


def test_rows_are_read_in_order_without_nulls(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [build_entry(end=None, image=None), build_entry(id="8", video=None)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    records, errors = read_entries(build(compose_part("source", "parquet"))(path, root))
    assert [(record.id, record.location, record.end) for record in records] == [("7", f"{path}[0]", None)]
    assert str(errors[0]).startswith(f"{path}[1]: ")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet: no Parquet file"):
        list(ParquetSource(tmp_path / "a.parquet", tmp_path).records())
