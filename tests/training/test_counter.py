"""The counter of samples: totals, the file, a resume, and the ceiling."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from omnihuman.data.ceiling import MIN_SKIPPED, TooManySkippedError
from omnihuman.data.tasks import TASK_NOT_LISTED
from omnihuman.training.counter import WINDOW, SampleCounter
from omnihuman.types import Batch

TRAINER = SimpleNamespace(
    is_global_zero=True,
    global_step=7,
    strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
)
MODULE = SimpleNamespace(device=torch.device("cpu"))


def describe(count: int, reason: str = "missing_file") -> tuple[dict[str, str], ...]:
    return tuple({"id": str(n), "reason": reason, "file": f"{n}.mp4", "message": "x"} for n in range(count))


def build_batch(num_used: int, num_skipped: int) -> Batch:
    ids = torch.zeros(1, 5, dtype=torch.long)
    return Batch({}, ids, ids, ids, (0,), 1, meta=({},) * num_used, skipped=describe(num_skipped))


def train(counter: SampleCounter, num_trained: int, num_skipped: int = 0, steps: int = 1) -> None:
    batch = build_batch(num_trained, num_skipped)
    for _ in range(steps):
        counter.on_train_batch_end(TRAINER, MODULE, None, (batch,), 0)


def validate(counter: SampleCounter, num_used: int, num_skipped: int) -> None:
    batch = build_batch(num_used, num_skipped)
    counter.on_validation_batch_end(TRAINER, MODULE, None, (batch,), 0)
    counter.on_validation_epoch_end(TRAINER, MODULE)


def test_samples_are_counted_and_written(tmp_path: Path) -> None:
    counter = SampleCounter(tmp_path / "skipped.jsonl")
    train(counter, 3, 1)
    validate(counter, 5, 2)
    counter.add_unplanned(describe(2, "truncated"), is_main=True)
    assert counter.num_trained == 3 and counter.skipped == {"missing_file": 1, "truncated": 2}
    assert counter.val_skipped == {"missing_file": 2}
    splits = [json.loads(line).get("split") for line in counter.file.read_text().splitlines()]
    assert splits == [None, "val", "val", None, None]


def test_a_resume_counts_and_lists_each_sample_once(tmp_path: Path) -> None:
    counter = SampleCounter(tmp_path / "skipped.jsonl")
    train(counter, 3, 2)
    state = counter.state_dict()
    train(counter, 3, 1)  # after the checkpoint
    resumed = SampleCounter(counter.file)
    resumed.load_state_dict(state)
    resumed._drop_lines(TRAINER)
    assert len(counter.file.read_text().splitlines()) == 2
    train(resumed, 3, 1)
    assert (resumed.num_trained, resumed.skipped) == (6, {"missing_file": 3})
    assert len(counter.file.read_text().splitlines()) == 3


def test_gaps_are_those_of_all_ranks_also_after_a_resume(tmp_path: Path) -> None:
    """A checkpoint has the counts of all ranks, and every rank loads it."""
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: 2 * tensor)
    two_ranks = SimpleNamespace(**{**vars(TRAINER), "strategy": strategy})
    batch = replace(build_batch(0, 0), meta=({"audio_gaps": [0.5, 1.0]}, {"audio_gaps": []}, {}))
    counter = SampleCounter(tmp_path / "skipped.jsonl")
    counter.on_train_batch_end(two_ranks, MODULE, None, (batch,), 0)
    assert counter.audio_gaps == {"samples": 2, "gaps": 4, "seconds": 3.0}
    assert (counter.step_samples, counter.step_tokens) == (6, 2 * batch.input_ids.numel())
    resumed = SampleCounter(counter.file)
    resumed.load_state_dict(counter.state_dict())
    resumed.on_train_batch_end(two_ranks, MODULE, None, (batch,), 0)
    assert resumed.audio_gaps == {"samples": 4, "gaps": 8, "seconds": 6.0} and resumed.num_trained == 12


def test_a_disk_that_goes_away_ends_the_training(tmp_path: Path) -> None:
    counter = SampleCounter(tmp_path / "skipped.jsonl", max_skipped=0.2)
    train(counter, 4, 0, steps=5 * WINDOW // 4)
    with pytest.raises(TooManySkippedError, match=r"step 7: 20 of 20 .*20 missing_file \(0\.mp4, 1\.mp4, \.\.\.\)"):
        train(counter, 0, 4, steps=MIN_SKIPPED // 4)


def test_a_high_share_ends_the_training_within_two_windows(tmp_path: Path) -> None:
    counter = SampleCounter(tmp_path / "skipped.jsonl", max_skipped=0.2)
    train(counter, 9, 1, steps=WINDOW)
    with pytest.raises(TooManySkippedError, match=r"100 of 200"):
        train(counter, 2, 2, steps=2 * WINDOW // 4)


def test_a_run_that_trained_nothing_is_not_finished(tmp_path: Path) -> None:
    counter = SampleCounter(tmp_path / "skipped.jsonl", max_skipped=1.0)
    train(counter, 0, 4)
    with pytest.raises(TooManySkippedError, match=r"the run: 4 of 4 .*4 missing_file.*skipped\.jsonl"):
        counter.add_unplanned((), is_main=True)
    with pytest.raises(TooManySkippedError, match="validation: 3 of 3"):
        validate(counter, 0, 3)


def test_records_of_other_tasks_are_counted_but_not_too_many(tmp_path: Path) -> None:
    counter = SampleCounter(tmp_path / "skipped.jsonl", max_skipped=0.2)
    train(counter, 100, 5)
    counter.add_unplanned(describe(300, TASK_NOT_LISTED), is_main=True)
    assert counter.skipped == {"missing_file": 5, TASK_NOT_LISTED: 300}
    assert len(counter.file.read_text().splitlines()) == 305
    with pytest.raises(TooManySkippedError, match=r"the run: 45 of 145"):
        counter.add_unplanned(describe(40, "truncated"), is_main=True)
