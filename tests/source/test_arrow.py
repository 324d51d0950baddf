"""Records as rows of a saved data set."""

import json
from pathlib import Path

import pyarrow
import pytest

from omnihuman.source.arrow import ArrowSource
from omnihuman.source.records import RecordsSource

from .conftest import build_entry, read_entries


def save(folder: Path, *parts: list[object]) -> Path:
    """Write rows as ``Dataset.save_to_disk`` does, in several Arrow files."""
    folder.mkdir()
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, rows in zip(names, parts, strict=True):
        table = pyarrow.Table.from_pylist(rows)
        with (folder / name).open("wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def test_rows_of_all_files_are_read_in_order_without_nulls(root: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "set", [build_entry(end=None, image=None)], [build_entry(id="8", video=None)])
    records, errors = read_entries(RecordsSource(folder, root))
    assert [(record.id, record.location, record.end) for record in records] == [("7", f"{folder}[0]", None)]
    assert str(errors[0]).startswith(f"{folder}[1]: ")
    before = ArrowSource(folder, root).fingerprint()
    assert before != ArrowSource(save(tmp_path / "other", [build_entry()]), root).fingerprint() | {"path": str(folder)}


def test_other_folders_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder of Dataset\.save_to_disk"):
        list(ArrowSource(tmp_path, root).records())
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match=r"splits train, test"):
        list(ArrowSource(tmp_path, root).records())
    folder = save(tmp_path / "set", [build_entry()])
    (folder / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ValueError, match=r"data-00000-of-00001\.arrow: no Arrow file"):
        list(ArrowSource(folder, root).records())
    (folder / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"state\.json: expected"):
        ArrowSource(folder, root).fingerprint()
