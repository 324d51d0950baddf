"""A JSON list of records."""

import json
from pathlib import Path

import pytest

from omnihuman.build import build, compose_part
from omnihuman.source.json import JsonSource

from .conftest import build_entry, read_entries


def test_a_list_is_read_in_order_with_places(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([build_entry(), {"id": "8"}, build_entry(id="9")]))
    records, errors = read_entries(build(compose_part("source", "json"))(path, root))
    assert [(record.id, record.location) for record in records] == [("7", f"{path}[0]"), ("9", f"{path}[2]")]
    assert f"{path}[1]" in str(errors[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"id": 1},\n{oops}\n]', r"a\.json:3: malformed JSON.*use \.jsonl"),
        (b'["\xff"]', "UTF-8"),
        (b"{}", r"a\.json: .*list of records.*\bdict"),
    ],
)
def test_a_malformed_file_raises(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(JsonSource(tmp_path / "a.json", tmp_path).records())
