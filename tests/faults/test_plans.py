"""One plan for all ranks, whatever a rank can read; every sample of a bad corpus is counted, over ranks and resumes."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from omnihuman.data.tasks import TASK_NOT_LISTED
from tests.data.conftest import write_clip
from tests.faults.training import Training, kill, wait_until
from tests.programs import run_ranks
from tests.smoke.test_train import read_ledger

NUM_RECORDS = 60


@pytest.fixture
def bad_corpus(corpus: Path, tmp_path: Path) -> Path:
    """Return a corpus of which a tenth is bad: two files are missing, one is no video, three are cut off."""
    root = tmp_path / "bad"
    shutil.copytree(corpus, root)
    data = write_clip(root / "talk.mp4", num_frames=12, seconds=0, container={"movflags": "+faststart"}).read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) // 2])
    (root / "text.mp4").write_text("no video")
    names = ["talk.mp4"] * (NUM_RECORDS - 6) + ["gone.mp4"] * 2 + ["text.mp4"] + ["cut.mp4"] * 3
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "A man."}]
    records = []
    for number, name in enumerate(names):
        records.append({"id": str(number), "video": name, "conversations": turns})
    (root / "train.json").write_text(json.dumps(records))
    return root


@pytest.mark.faults
def test_a_bad_corpus_is_counted_to_the_sample(bad_corpus: Path, tmp_path: Path) -> None:
    options = ("data.on_bad_sample=quarantine", "trainer.max_steps=-1", "recipe.max_epochs=1")
    training = Training(bad_corpus, tmp_path / "runs", *options)
    process = training.start(2)
    wait_until(lambda: training.has_checkpoint(6), process)
    kill(process)
    training.finish(2)
    ledger = read_ledger(training.run)
    assert ledger["skipped"] == {"missing_file": 2, "unreadable": 1, "truncated": 3}
    assert (ledger["planned"], ledger["trained"]) == (NUM_RECORDS, NUM_RECORDS - 6)
    skipped = [json.loads(line)["id"] for line in (training.run.folder / "skipped.jsonl").read_text().splitlines()]
    assert Counter(skipped) == Counter(str(number) for number in range(NUM_RECORDS - 6, NUM_RECORDS))


@pytest.mark.faults
def test_a_rank_that_cannot_read_has_the_plan_of_the_others(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path, "data.on_bad_sample=skip", "data.max_skipped=1.0")
    run_ranks(
        2, "tests.faults.unreadable", *training.overrides, "trainer.accelerator=cpu", "trainer.devices=2", "trainer=ddp"
    )
    ledger = read_ledger(training.run)
    num_unlisted = ledger["skipped"].pop(TASK_NOT_LISTED)
    assert ledger["trained"] == ledger["planned"] - num_unlisted == 32 and not ledger["skipped"]
