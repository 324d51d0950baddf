"""Signals end a training with a checkpoint and an exit code that tells what happened."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from omnihuman.stop import REQUEUE
from tests.faults.training import Training, wait_until
from tests.smoke.test_train import read_losses


@pytest.fixture(scope="module")
def losses(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    training = Training(corpus, tmp_path_factory.mktemp("uninterrupted"))
    training.finish(1, "auto")
    return read_losses(training.run)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "num_ranks", "strategy", "code"),
    [
        ("SIGTERM", 1, "auto", REQUEUE),
        ("SIGUSR1", 2, "ddp", REQUEUE),
        ("SIGTERM", 2, "fsdp", REQUEUE),
        ("SIGINT", 1, "auto", 130),
    ],
)
def test_a_signal_is_a_checkpoint_and_an_exit_code(
    name: str, num_ranks: int, strategy: str, code: int, losses: list[float], corpus: Path, tmp_path: Path
) -> None:
    training = Training(corpus, tmp_path)
    process = training.start(num_ranks, strategy)
    wait_until(lambda: training.has_checkpoint(2), process)
    os.kill(process.pid, getattr(signal, name))  # one rank alone
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output[-3000:]
    stopped = re.search(rf"{name}: stopped after step (\d+); the same command resumes", output)
    assert stopped is not None and training.has_checkpoint(int(stopped[1])) and "Traceback" not in output
    training.finish(num_ranks, strategy)
    assert read_losses(training.run) == pytest.approx(losses, abs=1e-5)


@pytest.mark.faults
def test_a_second_ctrl_c_stops_at_once(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path, "data.num_workers=1")
    process = training.start(1, "auto")
    wait_until(lambda: training.has_checkpoint(2), process)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in output


@pytest.mark.faults
def test_a_start_that_waits_for_another_one_is_requeued_by_a_signal(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    training.run.folder.parent.mkdir(parents=True)
    with FileLock(f"{training.run.folder}.lock"):
        (program,) = training.start_forked(1, "auto")
        output = Path(program.folder.name, "stdout")
        while "another process trains" not in " ".join(output.read_text().split() if output.is_file() else []):
            assert program.process.is_alive()
            time.sleep(0.05)
        assert program.process.pid is not None
        os.kill(program.process.pid, signal.SIGUSR1)
        end = program.wait()
    assert end.returncode == REQUEUE and "SIGUSR1: stopped" in end.stderr and "Traceback" not in end.stderr
