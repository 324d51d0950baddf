"""Records as JSON lines."""

import json
from pathlib import Path

import pytest

from omnihuman.build import build, compose_part

from .conftest import build_entry, read_entries


@pytest.mark.parametrize("line", [b'{"id": 1,}', b'{"id": "\xff"}', b"{'id': 1}", b'{"id": 1'])
def test_a_malformed_line_is_an_error_with_its_number(line: bytes, root: Path, tmp_path: Path) -> None:
    valid, path = json.dumps(build_entry()).encode(), tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([valid, line, b"", valid]))
    records, errors = read_entries(build(compose_part("source", "jsonl"))(path, root))
    assert [record.location for record in records] == [f"{path}:1", f"{path}:4"]
    assert [error.reason for error in errors] == ["malformed_json"]
    assert f"{path}:2" in str(errors[0])
