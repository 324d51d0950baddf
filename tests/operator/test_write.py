"""Records that the training reads, about the clips of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_config
from omnihuman.curation.store import build_table, write_partition
from omnihuman.data.record import Record
from omnihuman.operator.base import Dropped, Failed, Row
from omnihuman.operator.write import Write
from omnihuman.source.index import IndexSource
from omnihuman.source.records import RecordsSource
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row

CHAT = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "She."}]


def build_record(**fields: Any) -> str:
    return json.dumps(
        {"id": "a", "video": "old.mp4", "task": "body", "conversations": CHAT, "meta": {"n": 1}, **fields}
    )


def write(tmp_path: Path, *rows: Row, **options: Any) -> Write:
    operator = Write(**options)
    operator.setup(tmp_path / "out" / "05-write")
    live: list[Row] = []
    outcomes: list[Any] = []
    for row, outcome in zip(rows, operator.apply(rows), strict=True):
        if isinstance(outcome, dict):
            live.append(row)
            outcomes.append({"status": "live"} | outcome)
    write_partition(operator.folder / "part-00000.parquet", build_table(outcomes, operator.writes), {})
    operator.decide(live)
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
    track = {"track": 0, "times": [1.5, 2.5], "boxes": [[1.0, 2.0, 3.0, 4.0]] * 2, "scores": []}
    row = build_row(file, records=[build_record()], faces=[track], source_start=2.0)
    write(tmp_path, row)
    (record,) = RecordsSource(tmp_path / "out" / "records").records()
    assert isinstance(record, Record) and record.faces is not None
    assert [detection.time for detection in record.faces] == [0.5]


def test_rows_without_records_are_dropped_and_invalid_ones_fail(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=5, seconds=0.0)
    assert isinstance(apply_one(Write(), tmp_path / "x", build_row(file)), Dropped)
    row = build_row(file, records=[build_record()])
    assert isinstance(apply_one(Write(tasks=["face"]), tmp_path / "x", row), Dropped)
    row = build_row(file, records=[build_record(conversations=[])])
    assert isinstance(apply_one(Write(), tmp_path / "x", row), Failed)


def test_an_index_with_shards_holds_the_records(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=25, seconds=0.0)
    rows = [build_row(file, records=[build_record(id=name)], split=name) for name in ("train", "val")]
    operator = write(tmp_path, *rows, index=True, shard_gb=0.001)
    index = tmp_path / "out" / "index"
    for name, folder in (("train", index), ("val", index / "val")):
        (record,) = IndexSource(folder).records()
        assert isinstance(record, Record) and record.id == name and ".tar/" in str(record.file)
        assert build(compose_config(["data=index", f"data.index={folder}"]).data).sources
    assert operator.is_complete(operator.folder) and not Write(index=True).is_complete(tmp_path / "out" / "06-write")
    with pytest.raises(ValueError, match=r"shard_gb=1: .*index=true"):
        Write(shard_gb=1)


PAIRS = [{"question": "Who?", "answer": "She."}, {"question": "Where?", "answer": "Here."}]


def test_columns_become_instructions(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=5, seconds=0.0)
    instructions = [
        {"task": "face", "pairs": "pairs", "needs": ["video"]},
        {"task": "caption", "question": "What?", "answer": "text", "where": [{"column": "score", "least": 5}]},
        {"task": "open_emotion", "question": "Which words?", "answer": "labels"},
    ]
    rows = [
        build_row(file, id="a", pairs=PAIRS, text="A.", labels=["sad", "low"], score=5, split="train"),
        build_row(file, id="b", pairs=None, text="B.", labels=None, score=4),
        build_row(file, id="c", pairs=None, text="C.", labels=[], score=6),
    ]
    operator = write(tmp_path, *rows, tasks=None, instructions=instructions, weights={"face": 2}, faces=False)
    assert set(operator.reads) == {"pairs", "text", "labels", "score", "records", "kind", "has_sound"}
    records = list(RecordsSource(tmp_path / "out" / "records").records())
    assert all(isinstance(record, Record) for record in records)
    answers = [(record.task, record.needs, record.messages[-1][1]) for record in records if isinstance(record, Record)]
    assert answers == [
        ("face", ("video",), "She."),
        ("face", ("video",), "Here."),
        ("caption", (), "A."),
        ("open_emotion", (), "sad, low"),
        ("caption", (), "C."),
    ]
    mixture = (tmp_path / "out" / "records" / "mixture.yaml").read_text()
    assert mixture == "tasks:\n  caption: 1\n  face: 2\n  open_emotion: 1\n"


def test_subsets_are_disjoint_and_have_folders(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "media.mp4", num_frames=5, seconds=0.0)
    subsets = [
        {"name": "hre", "where": [{"column": "subset", "among": ["hre"]}]},
        {"name": "sre", "where": [{"column": "score", "least": 5}]},
    ]
    scores = [("hre", 9), ("hre", 1), (None, 5), (None, 4)]
    rows = []
    for number, (subset, score) in enumerate(scores):
        rows.append(build_row(file, records=[build_record(id=str(number))], subset=subset, score=score))
    operator = write(tmp_path, *rows, subsets=subsets)
    assert isinstance(list(operator.apply(rows))[3], Dropped)
    names = {}
    for part in ("", "hre", "sre"):
        source = RecordsSource(tmp_path / "out" / "records" / part)
        names[part] = [record.id for record in source.records() if isinstance(record, Record)]
    assert names == {"": ["0", "1", "2"], "hre": ["0", "1"], "sre": ["2"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instructions": [{"task": "a", "answer": "b"}]}, r"instructions\[0\].*question"),
        ({"instructions": [{"task": "a", "pairs": "b", "where": [{"column": "c"}]}]}, r"instructions\[0\]\.where"),
        ({"subsets": [{"name": "../x", "where": []}]}, r"subsets\[0\].*name, a word"),
    ],
)
def test_mistakes_name_the_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Write(**options)
