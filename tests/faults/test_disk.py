"""Disks that are full or read-only, files that block or are slow, and folders of two runs at once."""

import ctypes
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.faults.training import Training, kill, wait_until
from tests.smoke.test_train import read_ledger, read_losses

DROP_FROM_BOUNDING_SET, WRITE_ANYWHERE = 24, 1
"""``prctl`` of Linux, and the capability with which root writes into folders that nobody may write into."""


@pytest.mark.faults
@pytest.mark.parametrize(("num_ranks", "strategy"), [(1, "auto"), (2, "fsdp")])
def test_a_full_disk_ends_a_run_that_goes_on_later(num_ranks: int, strategy: str, corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    process = training.start(num_ranks, strategy, file_size=1_000_000)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and "cannot be written" in output and "the same command resumes" in output
    assert not training.has_checkpoint(1) and "Traceback" not in output
    training.finish(num_ranks, strategy)


@pytest.mark.faults
def test_a_second_start_waits_for_the_first(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    first = training.start(1, "auto")
    wait_until(lambda: training.has_checkpoint(2), first)
    second = training.start(1, "auto")
    kill(first)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and training.run.weights.is_file(), output[-3000:]


@pytest.mark.faults
def test_one_of_two_starts_at_once_trains(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    outputs = []
    for process in [training.start(1, "auto") for _ in range(2)]:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-3000:]
        outputs.append(" ".join(output.split()))
    assert sorted("is finished already" in output for output in outputs) == [False, True]
    assert len(read_losses(training.run)) == 8 and not list(tmp_path.glob("nano/*.[0-9n]*"))


@pytest.mark.faults
def test_another_config_leaves_an_interrupted_run_as_it_is(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    training.run_forked(1, "auto", "trainer.checkpoint_async=false", fault="die 5 *")
    training.finish_forked(1, "auto", "recipe.lr=1e-4")
    assert read_ledger(training.run)["command"].count("recipe.lr=1e-4") == 1
    (end,) = training.run_forked(1, "auto")
    assert end.returncode == 1 and "holds this run, interrupted" in end.stderr and "Traceback" not in end.stderr
    folder = training.run.folder
    folder.with_name(f"{folder.name}.1").rename(folder.with_name(f"{folder.name}.new"))  # as the message says
    training.finish_forked(1, "auto")
    losses = read_losses(training.run)
    training.finish_forked(1, "auto", f"runs={tmp_path / 'again'}")
    assert losses == read_losses(Training(corpus, tmp_path / "again").run)


def drop_write_anywhere() -> None:
    """Let root obey the modes of folders, as others do."""
    ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, WRITE_ANYWHERE, 0, 0, 0)


@pytest.mark.faults
def test_a_folder_that_cannot_be_written_is_named(corpus: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o500)
    training = Training(corpus, runs)
    process = training.start(1, "auto", limit=drop_write_anywhere)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in output
    assert str(runs) in output and "Permission denied" in output and "runs=" in output, output
    runs.chmod(0o700)
    training.finish_forked(1, "auto")


@pytest.mark.faults
@pytest.mark.parametrize(("num_ranks", "strategy"), [(1, "auto"), (2, "fsdp")])
def test_files_that_block_or_are_slow_are_counted(num_ranks: int, strategy: str, corpus: Path, tmp_path: Path) -> None:
    records = [entry for entry in json.loads((corpus / "train.json").read_text()) if "video" in entry]
    media = tmp_path / "media"
    media.mkdir()
    os.mkfifo(media / "pipe.mp4")
    clip = corpus / records[0]["video"]
    for name in ("slow.mp4", "talk.mp4"):
        shutil.copy(clip, media / name)
    names = ["pipe.mp4", "slow.mp4", *["talk.mp4"] * 14]
    entries = [dict(records[0], id=str(number), video=f"media/{name}") for number, name in enumerate(names)]
    (tmp_path / "records.json").write_text(json.dumps(entries))
    more = (
        f"data.records={tmp_path}/records.json",
        f"data.root={tmp_path}",
        "data.val_records=null",
        "data.on_bad_sample=skip",
        "data.timeout=4",
        "data.max_skipped=0.5",
        "recipe.max_steps=4",
        "recipe.max_epochs=1",
    )
    training = Training(corpus, tmp_path / "runs", *more, f"data.tasks=[{records[0]['task']}]")
    ends = training.run_forked(num_ranks, strategy, fault="slow 0 *")
    assert [end.returncode for end in ends] == [0] * num_ranks, ends[0].stderr[-3000:]
    ledger = read_ledger(training.run)
    assert ledger["skipped"] == {"missing_file": 1, "timeout": 1} and ledger["planned"] == ledger["trained"] + 2
