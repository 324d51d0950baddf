"""Records that the training reads, about the clips of the rows."""

import json
from pathlib import Path
from typing import Any

from omnihuman.curation.store import build_table, write_partition
from omnihuman.data.record import Record
from omnihuman.operator.base import Dropped, Failed, Row
from omnihuman.operator.write import Write
from omnihuman.source.records import RecordsSource
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row

CHAT = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "She."}]


def build_record(**fields: Any) -> str:
    return json.dumps(
        {"id": "a", "video": "old.mp4", "task": "body", "conversations": CHAT, "meta": {"n": 1}, **fields}
    )


def write(tmp_path: Path, *rows: Row) -> Write:
    operator = Write()
    operator.setup(tmp_path / "out" / "05-write")
    outcomes: list[Any] = [{"status": "live"} | dict(outcome) for outcome in operator.apply(rows)]  # type: ignore
    write_partition(operator.folder / "part-00000.parquet", build_table(outcomes, operator.writes), {})
    operator.decide(rows)
    return operator


def test_records_name_the_clip_and_keep_their_keys(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=25, seconds=0.0)
    track = {"track": 0, "times": [0.5, 1.5], "boxes": [[1.0, 2.0, 3.0, 4.0]] * 2, "scores": []}
    row = build_row(file, records=[build_record()], start=0.25, end=0.75, faces=[track], split="val")
    write(tmp_path, row, build_row(file, records=[build_record(id="b")]))
    folder = tmp_path / "out" / "records"
    (record,) = RecordsSource(folder / "val.json").records()
    assert isinstance(record, Record) and record.file == file.resolve() and record.span == (0.25, 0.75)
    assert record.meta["meta"] == {"n": 1} and record.faces is not None and record.faces[0].time == 0.5
    (second,) = RecordsSource(folder).records()
    assert isinstance(second, Record) and second.id == "b" and second.faces is None
    assert "body: 1" in (folder / "mixture.yaml").read_text()
    assert json.loads((folder / "report.json").read_text())["records"] == {"val": 1, "train": 1}


def test_boxes_of_a_trimmed_clip_begin_with_it(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=25, seconds=0.0)
    track = {"track": 0, "times": [2.5], "boxes": [[1.0, 2.0, 3.0, 4.0]], "scores": []}
    row = build_row(file, records=[build_record()], faces=[track], source_start=2.0)
    write(tmp_path, row)
    (record,) = RecordsSource(tmp_path / "out" / "records").records()
    assert isinstance(record, Record) and record.faces is not None and record.faces[0].time == 0.5


def test_rows_without_records_are_dropped_and_invalid_ones_fail(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=5, seconds=0.0)
    assert isinstance(apply_one(Write(), tmp_path / "x", build_row(file)), Dropped)
    row = build_row(file, records=[build_record()])
    assert isinstance(apply_one(Write(tasks=["face"]), tmp_path / "x", row), Dropped)
    row = build_row(file, records=[build_record(conversations=[])])
    assert isinstance(apply_one(Write(), tmp_path / "x", row), Failed)
