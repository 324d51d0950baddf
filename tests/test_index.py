"""The verb ``index``, as users type it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_config
from omnihuman.data.record import Record
from omnihuman.index import main
from omnihuman.source.index import IndexSource
from tests.data.conftest import write_clip, write_records


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "talk.mp4", num_frames=10, seconds=0.5)


@pytest.fixture
def folder(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with ``media`` and ``a.jsonl``, one of whose rows is broken and one has no file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnihuman"])
    (tmp_path / "media").mkdir()
    for name in ("talk.mp4", "late.mp4"):
        (tmp_path / "media" / name).hardlink_to(clip)
    write_records(tmp_path / "a.jsonl", 5, broken=2)
    return tmp_path


def index(*more: str) -> None:
    main(["records=a.jsonl", "root=media", "out=index", "processes=1", *more])


def read_bad() -> list[Any]:
    return [json.loads(line) for line in Path("index/bad.jsonl").read_text().splitlines()]


def test_a_data_file_becomes_an_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index()
    output = capsys.readouterr().out
    assert "5 records" in output and "1 bad rows (1 malformed_json)" in output and "data.index=index" in output
    assert [(row["row"], row["records"]) for row in read_bad()] == [(1, "a.jsonl")]
    data = build(compose_config(["data=index", f"data.index={folder / 'index'}"]).data)
    assert isinstance(data.sources[0].source, IndexSource) and data.path == str(folder / "index")
    assert len(list(data.sources[0].source.records())) == 6


def test_a_records_folder_has_its_validation_in_the_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine").mkdir()
    for name, number in (("train", 3), ("val", 2)):
        write_records(folder / "a.jsonl", number)
        records = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
        (folder / "mine" / f"{name}.json").write_text(json.dumps(records))
    index("records=mine", "shards=shards")
    assert "index/val: 2 records" in (output := capsys.readouterr().out) and "val_records" not in output
    config = compose_config(["data=index", "data.index=index"])
    assert config.data.val_records == "index/val" and len(list(IndexSource("index/val").records())) == 2
    assert compose_config(["data=index", "data.index=index/val"]).data.val_records is None
    assert len(list(Path("shards").iterdir())) == 1


def test_the_same_command_again_leaves_the_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index()
    first = Path("index/index.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr("omnihuman.data.plan.table_writer.TableWriter.add", None)
        index()
    assert Path("index/index.json").read_text() == first
    write_records(folder / "a.jsonl", 6)
    index()
    manifest = json.loads(Path("index/index.json").read_text())
    assert manifest["num_records"] == [6] and not read_bad()
    tables = {file.parent.relative_to("index").as_posix() for file in Path("index").rglob("plan.json")}
    assert tables == set(manifest["tables"]), "those of the earlier rows are deleted"


def test_an_interrupted_index_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("omnihuman.data.plan.table_writer.TableWriter.finish", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            index()
    assert list(Path("index/headers").rglob("*.arrow")) and not Path("index/index.json").exists()
    monkeypatch.setattr("omnihuman.data.media.probe", None)
    index()
    assert len(read_bad()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("timeout=0", "timeout=0: expected"),
        ("out=a.jsonl", "out=a.jsonl is a"),
        ("out=media", "out=media holds other"),
        ("records=b.jsonl", "b.jsonl: there is no"),
        ("media=pixels", "media=pixels: choose"),
        ("media=frames", "frames.num_frames=None: "),
        ("[media=frames,frames.num_frames=4]", "media=frames: .*shards="),
    ],
)
def test_mistakes_are_named(folder: Path, override: str, message: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        index(*override.strip("[]").split(","))


def test_no_usable_record_is_an_error(folder: Path) -> None:
    write_records(folder / "a.jsonl", 2, video="gone.mp4")
    with pytest.raises(SystemExit, match=r"a.jsonl: no record.*2 bad rows \(2 missing_file\)"):
        index()


def test_media_are_packed_into_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index("shards=shards", "shards_url=https://clips.example/a")
    assert IndexSource("index").stored_frames is None
    records = [entry for entry in IndexSource("index").records() if not isinstance(entry, tuple)]
    assert {str(record.file.parent) for record in records} == {"https:/clips.example/a/00000.tar"}
    assert [file.name for file in Path("shards").iterdir()] == ["00000.tar"]
    for wrong, message in (("shard_gb=0", "shard_gb=0"), ("shards=null", "shards_url: without shards")):
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            index("shards=shards", "shards_url=https://clips.example/a", wrong)


def test_frames_are_stored_for_training(folder: Path) -> None:
    index("shards=shards", "media=frames", "frames.num_frames=2", "frames.size=16")
    stored = IndexSource("index").stored_frames
    assert stored is not None and (stored.num_frames, stored.size) == (2, 16)
    records = [entry for entry in IndexSource("index").records() if isinstance(entry, Record)]
    assert len(records) == 4 and {record.file.suffix for record in records} == {".mov"}
    assert len({record.file for record in records}) == 4, "each span of a clip has a file"
    assert read_bad()[1]["reason"] == "empty_clip", "it begins where its file ends"
    Path("media/talk.mp4").touch()
    manifest = Path("index/index.json").read_text()
    index("shards=shards", "media=frames", "frames.num_frames=2", "frames.size=16", "frames.quality=50")
    assert Path("index/index.json").read_text() != manifest
