"""Records as rows of a Parquet file, with a stand-in for pyarrow."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from omnihuman.build import build, compose_part
from omnihuman.source.parquet import ParquetSource

from .conftest import build_entry, read_entries


def test_rows_are_read_in_order_without_nulls(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    rows = [build_entry(end=None, image=None), build_entry(id="8", video=None)]
    pyarrow = ModuleType("pyarrow")
    pyarrow.parquet = SimpleNamespace(read_table=lambda file: SimpleNamespace(to_pylist=lambda: rows))
    monkeypatch.setitem(sys.modules, "pyarrow", pyarrow)
    records, errors = read_entries(build(compose_part("source", "parquet"))(path, root))
    assert [(record.id, record.location, record.end) for record in records] == [("7", f"{path}[0]", None)]
    assert str(errors[0]).startswith(f"{path}[1]: ")


def test_without_pyarrow_the_error_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install .omnihuman\[parquet\]"):
        list(ParquetSource(tmp_path / "a.parquet", tmp_path).records())
