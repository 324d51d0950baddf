"""Processes that end: ranks, the first one too, and data workers. The others end as well, and say which it was."""

import re
import signal
import time
from pathlib import Path

import pytest

from tests.faults.training import Training
from tests.smoke.test_train import read_ledger, read_losses


@pytest.fixture(scope="module")
def losses(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    training = Training(corpus, tmp_path_factory.mktemp("uninterrupted"))
    training.finish_forked(1, "auto")
    return read_losses(training.run)


def list_group(group: int) -> list[int]:
    """Return the processes of a group that run."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            processes.append(int(stat.parent.name))
    return processes


@pytest.mark.faults
@pytest.mark.parametrize(("rank", "strategy"), [(1, "ddp"), (1, "fsdp"), (0, "ddp")])
def test_a_rank_that_is_killed_ends_the_job(
    rank: int, strategy: str, losses: list[float], corpus: Path, tmp_path: Path
) -> None:
    training = Training(corpus, tmp_path)
    process = training.start(2, strategy, fault=f"die 5 {rank}")
    output, _ = process.communicate(timeout=300)
    if rank == 0:
        assert process.returncode == -signal.SIGKILL
    else:
        named = r"local rank 1 \(process \d+\) was ended by SIGKILL|\[rank: 1\] Child process .*code -9"
        assert process.returncode in (1, -signal.SIGKILL) and re.search(named, " ".join(output.split())), output[-3000:]
    end = time.monotonic() + 30
    while list_group(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert list_group(process.pid) == [], "an orphan"
    training.finish_forked(2, strategy)
    assert read_losses(training.run) == pytest.approx(losses, abs=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize(("num_ranks", "strategy"), [(1, "auto"), (2, "fsdp")])
def test_a_data_worker_that_is_killed_ends_the_job(
    num_ranks: int, strategy: str, losses: list[float], corpus: Path, tmp_path: Path
) -> None:
    training = Training(corpus, tmp_path, "data.num_workers=1")
    ends = training.run_forked(num_ranks, strategy, fault="worker 3 0")
    assert [end.returncode for end in ends] == [1] * num_ranks
    assert "error: DataLoader worker" in ends[0].stderr and "lower data.num_workers" in ends[0].stderr
    assert "Traceback" not in "".join(end.stderr for end in ends)
    training.finish_forked(num_ranks, strategy)
    assert read_losses(training.run) == pytest.approx(losses, abs=1e-5)


@pytest.mark.faults
def test_a_loss_that_is_nan_on_one_rank_stops_all_and_the_same_command_goes_on(
    losses: list[float], corpus: Path, tmp_path: Path
) -> None:
    training = Training(corpus, tmp_path)
    ends = training.run_forked(2, "fsdp", fault="nan 5 1")
    for end in ends:
        assert end.returncode == 1 and "step 5: the loss is not finite" in end.stderr and "Traceback" not in end.stderr
    training.finish_forked(2)
    assert read_losses(training.run) == pytest.approx(losses, abs=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("ranks", [(2, 2), (2, 1), (1, 2)], ids=str)
def test_the_account_adds_up_over_ranks_and_resumes(ranks: tuple[int, int], corpus: Path, tmp_path: Path) -> None:
    """Steps after the checkpoint, which are repeated, are counted once."""
    training = Training(corpus, tmp_path, "on_bad_loss=skip")
    ends = training.run_forked(ranks[0], "ddp" if ranks[0] == 2 else "auto", fault="die 5 *")
    assert [end.returncode for end in ends] == [-signal.SIGKILL] * ranks[0]
    ends = training.run_forked(ranks[1], "ddp" if ranks[1] == 2 else "auto", fault="nan 6 0")
    assert [end.returncode for end in ends] == [0] * ranks[1], ends[0].stderr[-3000:]
    ledger = read_ledger(training.run)
    assert ledger["skipped"]["bad_loss"] == 4, "the samples of one step, of both ranks"
    assert ledger["planned"] == ledger["trained"] + sum(ledger["skipped"].values())
    lines = (training.run.folder / "skipped.jsonl").read_text().splitlines()
    assert len(lines) == sum(ledger["skipped"].values())
