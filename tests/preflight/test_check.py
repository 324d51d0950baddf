"""Verdicts on single records: those of training, each clip decoded once."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.data import media
from omnihuman.data.dataset import Samples
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import Record
from omnihuman.preflight.check import Checker, Job, Verdict, group_jobs

from .conftest import write_records

ENTRIES: tuple[dict[str, Any], ...] = (
    {},
    {"video": "cut_front.mp4"},
    {"video": "cut_back.mp4"},
    {"video": "empty.mp4"},
    {"video": "silent.mp4"},
    {"video": "silent.mp4", "needs": ["audio"]},
    {"video": "talk.mp4", "start": 7, "question": "<video>\nWho?"},
    {"video": "talk.mp4", "start": 7},
    {"video": "talk.mp4", "question": "Who? " * 500 + "<video>"},
    {"video": "talk.mp4", "answer": "happy <|im_end|>"},
    {"video": "talk.mp4", "faces": [{"time": 0, "box": [500, 500, 600, 600]}]},
    {"video": "talk.mp4", "faces": [{"time": 0, "box": [0, 0, 20, 20]}, {"time": 1, "box": None}]},
    {"image": "image.png", "question": "<image>?"},
    {"audio": "tone.m4a", "question": "<audio>?"},
    {"video": "talk.mp4", "audio_track": "tone.wav"},
)


def check(data: Any) -> dict[str, Verdict]:
    """Return the verdict on every valid record of the training data by its id."""
    records = [entry for _, entry in data.read_entries("train") if isinstance(entry, Record)]
    verdicts = {}
    for job in group_jobs(enumerate(records)):
        for record, verdict in zip(job.records, Checker(data)(job), strict=True):
            verdicts[record.id] = verdict
    return dict(sorted(verdicts.items()))


@pytest.mark.parametrize("views", [["VAF"], ["VAF", "VF", "A"], ["F", "A"]])
def test_verdicts_are_those_of_training(views: list[str], build_data: Any, tmp_path: Path) -> None:
    data = build_data(write_records(tmp_path / "a.jsonl", *ENTRIES), views=views)
    verdicts = check(data)
    samples = data.train_samples
    skipped = list(samples.skipped)
    for index in range(len(samples)):
        skipped += samples[MicroBatch((index,), 1)].skipped
    problems = list(itertools.chain(*(verdict.problems for verdict in verdicts.values())))
    expected = Counter((skip["id"], skip["file"], skip["reason"], skip["message"]) for skip in skipped)
    assert Counter((bad.id, bad.file, bad.reason, bad.message) for bad in problems) == expected
    bad_ids = {skip["id"] for skip in skipped}
    expected_lengths = [planned.length for planned in samples.planned if planned.record.id not in bad_ids]
    lengths = itertools.chain(*(verdict.lengths for verdict in verdicts.values()))
    assert sorted(lengths) == sorted(expected_lengths)
    assert len(verdicts) == len(ENTRIES) and len(bad_ids) > 5


def test_a_clip_is_decoded_once(build_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    read_clip = media.read_clip
    monkeypatch.setattr(media, "read_clip", lambda *args: calls.append(args[0].id) or read_clip(*args))
    entries = [{}, {"question": "<video>\n<audio>\nWhere?"}, {"question": "<audio>\nWhat?"}, {"end": 1.0}]
    verdicts = check(build_data(write_records(tmp_path / "a.jsonl", *entries), views=["VAF", "VF", "A"]))
    assert len(calls) == 2, "the whole clip, and its first second"
    assert [len(verdict.lengths) for verdict in verdicts.values()] == [3, 3, 1, 3]
    contents = [verdict.content for verdict in verdicts.values()]
    assert contents[0].frames == contents[1].frames != contents[3].frames


def test_an_error_of_any_kind_is_a_problem_of_its_record(
    build_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Samples.sample

    def fail(self: Samples, planned: Any, *args: Any) -> Any:
        if planned.record.start == 1:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return sample(self, planned, *args)

    monkeypatch.setattr(Samples, "sample", fail)
    verdicts = check(build_data(write_records(tmp_path / "a.jsonl", {}, {"start": 1}, {"end": 1})))
    assert [len(verdict.problems) for verdict in verdicts.values()] == [0, 1, 0]
    (problem,) = verdicts["r1"].problems
    assert "a.jsonl:2 (r1)" in problem.message and "UnicodeDecodeError" in problem.message


def test_answers_that_are_cut_are_counted(build_data: Any, tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", {}, {"answer": "word " * 3000})
    verdicts = check(build_data(path, views=["VAF", "A"]))
    assert [verdict.num_cut for verdict in verdicts.values()] == [0, 2]
    assert verdicts["r1"].lengths == (700, 700)


def test_faces_audio_and_seconds_are_measured(build_data: Any, tmp_path: Path) -> None:
    boxes = [{"time": 0, "box": [0, 0, 20, 20]}, {"time": 1, "box": None}]
    entries = [{"faces": boxes}, {}, {"video": "silent.mp4"}, {"start": 0.5, "end": 1.5}, {"faces": []}]
    verdicts = check(build_data(write_records(tmp_path / "a.jsonl", *entries)))
    faces = [verdict.content.num_faces for verdict in verdicts.values()]
    assert faces == [1, None, None, None, 0], "one frame of four is nearer to the box than to the time without a face"
    assert [verdict.is_located for verdict in verdicts.values()] == [True, False, False, False, True]
    assert [verdict.dropped for verdict in verdicts.values()] == [(), (), ("audio",), (), ()]
    assert verdicts["r0"].content.peak > 0.3 and verdicts["r2"].content.peak is None
    assert verdicts["r0"].seconds == pytest.approx(2.0, abs=0.1) and verdicts["r3"].seconds == 1.0


def test_a_still_video_differs_from_others_by_its_audio(
    build_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = media.read_clip

    def freeze(*args: Any) -> media.Clip:
        clip = read(*args)
        return media.Clip(torch.zeros_like(clip.frames), clip.times, clip.waveform, clip.num_first)

    moving = check(build_data(write_records(tmp_path / "a.jsonl", {})))["r0"].content
    monkeypatch.setattr(media, "read_clip", freeze)
    still = check(build_data(write_records(tmp_path / "a.jsonl", {})))["r0"].content
    assert moving.is_moving and not still.is_moving and still.audio == moving.audio != ""


def test_jobs_have_the_records_of_one_file() -> None:
    def build(file: str, start: float) -> Record:
        return Record(f"{file}{start:g}", Path(f"/{file}.mp4"), "video", (), (), start=start)

    def join(job: Job) -> str:
        return " ".join(record.id for record in job.records)

    records = [build(file, float(start)) for file, start in itertools.product("ab", (4, 3, 2, 1, 0))]
    jobs = group_jobs(enumerate(records), max_records=3)
    assert list(map(join, jobs)) == ["a0 a1 a2", "a3 a4", "b0 b1 b2", "b3 b4"]
    assert [job.numbers for job in Job.split(jobs[0])] == [(4,), (3,), (2,)]
