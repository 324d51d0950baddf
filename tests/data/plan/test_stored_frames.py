"""Stored frames: near to those of the files, without these, and refused where a run reads something else."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.decode.header import Header
from omnihuman.data.module import OmniData
from omnihuman.data.plan.headers import HeaderStore
from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.plan.planning import probe_file
from omnihuman.data.plan.record_tables import Packing, write_records
from omnihuman.data.plan.source_plans import name_headers
from omnihuman.data.plan.stored_frames import StoredFrames, parse_frames
from omnihuman.data.plan.table_writer import TableWriter
from omnihuman.data.record import Record
from omnihuman.nn.frames import SquareFrames
from omnihuman.source.index import IndexSource
from omnihuman.source.jsonl import JsonlSource
from tests.data.conftest import CHATML, count_tokens, write_clip
from tests.data.conftest import write_records as write_lines

SQUARE = SquareFrames(24)
STORED = StoredFrames(4, 24)
WHOLE = ("waveform", lambda waveform: waveform[:, None])
TRANSFORMS: dict[str, Any] = {"video": ("frames", SQUARE), "audio": WHOLE}


def probe_all(files: Any) -> Any:
    return {file: probe_file(file, timeout=20.0, policy="skip") for file in files}


def write_index(records: Path, root: Path, out: Path, num_processes: int = 1) -> Path:
    shards = ShardWriter(str(out / "shards"), str(out / "shards"), out / "log")
    headers = HeaderStore(out / "headers" / name_headers(), probe_all)
    packing = Packing(shards, STORED)
    write_records(TableWriter(out / "t"), JsonlSource(records, root), headers, {}, packing, num_processes)
    (out / "index.json").write_text(json.dumps({"tables": ["t"], "frames": {"num_frames": 4, "size": 24}}))
    return out


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("talk.mp4", "late.mp4"):
        write_clip(folder / name, num_frames=20, seconds=1.5)
    return folder


def test_samples_are_near_to_those_of_the_files(
    build_data: Callable[..., OmniData], clips: Path, tmp_path: Path, tokenizer: Any
) -> None:
    root = tmp_path / "media"
    root.mkdir()
    for clip in clips.iterdir():
        (root / clip.name).write_bytes(clip.read_bytes())
    (root / "cut.mp4").write_bytes((root / "talk.mp4").read_bytes()[:3000])
    records = write_lines(tmp_path / "a.jsonl", 5, "a")
    bad = write_lines(tmp_path / "b.jsonl", 2, "b", video="cut.mp4")
    Path(records).write_text(Path(records).read_text() + Path(bad).read_text())
    options = {"num_frames": 4, "on_bad_sample": "skip", "max_skipped": 0.9}
    source = JsonlSource(records, root)
    expected = build_data(source, **options)
    folder = write_index(Path(records), root, tmp_path / "index", num_processes=2)
    data = build_data(IndexSource(folder), index=str(folder), **options)
    for entry in (expected, data):
        entry.connect(TRANSFORMS, count_tokens, tokenizer, CHATML)
    pairs = list(zip(data.train_samples.planned, expected.train_samples.planned, strict=True))
    loaded = [expected.train_samples.sample(planned) for _, planned in pairs]
    for file in root.iterdir():
        file.unlink()
    for (planned, other), original in zip(pairs, loaded, strict=True):
        assert planned.length == other.length and planned.record.messages == other.record.messages
        sample = data.train_samples.sample(planned, list(TRANSFORMS))
        frames = data.train_samples.to_packable(planned, sample).signals["video"]
        difference = (frames.int() - SQUARE(original.media["frames"]).int()).abs().float()
        assert difference.mean() < 8 and difference[..., 0, :].max() == 0, "JPEG, and grey bars as they were"
        assert (sample.media["waveform"] - original.media["waveform"]).abs().max() <= 2**-15


@pytest.mark.parametrize(
    ("options", "transform", "message"),
    [
        ({"num_frames": 8}, SQUARE, "frames=8: .*choose frames=4"),
        ({"sampling": "ends"}, SQUARE, "data.sampling=ends: "),
        ({"time_instruction": "{seconds}"}, SQUARE, "data.time_instruction: "),
        ({}, SquareFrames(32), "encoder video reads .*size=32.*media=files"),
        ({}, SquareFrames(24, "crop"), "encoder video reads .*crop"),
        ({"field": "faces"}, SQUARE, "encoder video reads .*faces"),
    ],
)
def test_a_run_that_reads_something_else_is_refused(
    build_data: Callable[..., OmniData],
    tmp_path: Path,
    tokenizer: Any,
    options: dict[str, Any],
    transform: SquareFrames,
    message: str,
) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"tables": [], "frames": {"num_frames": 4, "size": 24}}))
    field = options.pop("field", "frames")
    data = build_data(IndexSource(tmp_path), index=str(tmp_path), **({"num_frames": 4} | options))
    data.connect({"video": (field, transform)}, count_tokens, tokenizer, CHATML)
    with pytest.raises(ValueError, match=message):
        _ = data.train_samples


@pytest.mark.parametrize(
    "values", [{"num_frames": 0}, {"size": 2.5}, {"quality": 96}, {"aspect": "wide"}, {"sampling": "fps"}]
)
def test_options_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        parse_frames(**(asdict(STORED) | values))


def test_spans_and_tracks_have_files_of_their_own(clips: Path) -> None:
    record = Record("1", clips / "talk.mp4", "video", (), ("video", "audio"))
    changed = [replace(record, start=0.5), replace(record, end=1.0), replace(record, audio_track=clips / "late.mp4")]
    names = {STORED.name(entry) for entry in [record, replace(record, id="2"), *changed]}
    assert len(names) == 4 and replace(STORED, size=28).name(record) not in names
    content = STORED.encode(replace(record, start=0.5, end=1.0), Header(True, (0.0, 1.5), num_frames=20), 20.0)
    assert len(content) > 1000
    assert not STORED.can_store(replace(record, second_clip=clips / "late.mp4"))
