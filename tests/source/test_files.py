"""Data files: their suffix, and errors of single entries."""

from pathlib import Path

import pytest

from omnihuman.source.files import FileSource
from omnihuman.source.json import JsonSource
from omnihuman.source.jsonl import JsonlSource
from omnihuman.source.parquet import ParquetSource

from .conftest import build_entry, read_entries, write_lines


@pytest.mark.parametrize("source", [JsonSource, JsonlSource, ParquetSource])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", r"a\.txt: .*\.json, \.jsonl, \.parquet"),
        ("a.csv", r"a\.csv: .*omnihuman records source=table path=.*a\.csv"),
        ("missing.json", r"missing\.json: .*no such"),
    ],
)
def test_an_invalid_file_raises(source: type[FileSource], name: str, message: str, tmp_path: Path) -> None:
    if name != "missing.json":
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=message):
        list(source(tmp_path / name, tmp_path).records())


def test_a_file_of_another_source_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"a\.json .*\.jsonl file: .*data=json\."):
        list(JsonlSource(tmp_path / "a.json", tmp_path).records())


def test_an_invalid_record_is_an_error_with_place_and_key(root: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", build_entry(), build_entry(id="8", video="gone.mp4"), 3)
    source = JsonlSource(path, root)
    records, errors = read_entries(source)
    assert [record.id for record in records] == ["7"] and source.location == str(path)
    assert str(errors[0]).startswith(f"{path}:2: video 'gone.mp4'")
    assert [error.reason for error in errors] == ["missing_file", "malformed_record"]
    assert [entry[0] for entry in list(source.records())[1:]] == ["8", f"{path}:3"]
