"""Signals end a training with a checkpoint and an exit code that tells what happened."""

import os
import re
import signal
from pathlib import Path

import pytest

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
