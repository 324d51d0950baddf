"""Shards are tar files that any program reads; a packing that was interrupted goes on."""

import json
import os
import shutil
import tarfile
from pathlib import Path

from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.record import Record
from omnihuman.data.shards import parse_member

NAMES = ("talk.mp4", "late.mp4", "silent.mp4", "talk.mp4")


def build_records(root: Path) -> list[Record]:
    return [Record(str(number), root / name, "video", (), ()) for number, name in enumerate(NAMES)]


def test_shards_have_the_bytes_of_every_file_once(media_root: Path, tmp_path: Path) -> None:
    size = (media_root / "talk.mp4").stat().st_size
    writer = ShardWriter(str(tmp_path / "out"), str(tmp_path / "out"), tmp_path / "log", size + 2048)
    records = list(map(writer.pack, build_records(media_root)))
    writer.finish()
    assert records[0].file == records[3].file
    for record, name in zip(records, NAMES, strict=True):
        member = parse_member(record.file)
        assert member is not None and member.suffix == ".mp4"
        content = Path(member.url).read_bytes()[member.offset : member.offset + member.size]
        assert content == (media_root / name).read_bytes()
    names = []
    for shard in sorted((tmp_path / "out").iterdir()):
        with tarfile.open(shard) as tar:
            names += [(shard.name, info.name) for info in tar]
    assert names == [
        ("00000.tar", "000000000.mp4"),
        ("00000.tar", "000000001.mp4"),
        ("00001.tar", "000000002.mp4"),
    ]


def test_finished_shards_are_taken_over(media_root: Path, tmp_path: Path) -> None:
    root, target = tmp_path / "media", str(tmp_path / "out")
    root.mkdir()
    for name in set(NAMES):
        shutil.copy(media_root / name, root)
    first = ShardWriter(target, target, tmp_path / "log", 1)
    members = [first.pack(record).file for record in build_records(root)]
    os.utime(root / "silent.mp4", ns=(1, 1))
    again = ShardWriter(target, target, tmp_path / "log", 1)
    repeated = [again.pack(record).file for record in build_records(root)]
    assert [a == b for a, b in zip(members, repeated, strict=True)] == [True, True, False, True]
    assert repeated[2].parent.name == "00003.tar", "a finished shard is never written again"
    assert len(json.loads((tmp_path / "log" / "00000.json").read_text())["sha256"]) == 64


def test_folders_and_texts_stay(media_root: Path, tmp_path: Path) -> None:
    writer = ShardWriter("memory://none", "memory://none", tmp_path / "log")
    folder = Record("1", media_root, "video", (), ())
    text = Record("2", media_root, "text", (), ())
    assert writer.pack(folder) == folder and writer.pack(text) is text
