"""A signal ends a training after its step, with a checkpoint; a second Ctrl-C ends it at once."""

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnihuman.stop import Interrupted
from omnihuman.training.interruption import Interruption, end_outside_of_steps

TRAINER: Any = SimpleNamespace(
    global_step=6,
    state=SimpleNamespace(fn="fit"),
    strategy=SimpleNamespace(
        root_device=torch.device("cpu"), reduce=lambda tensor, reduce_op: tensor, barrier=lambda: None
    ),
)


class Saver:
    """Counts what it would save."""

    folder = "checkpoints"
    background = SimpleNamespace(wait=lambda: None)

    def __init__(self, is_deferred: bool = False) -> None:
        self.num_saved = 0
        self.is_deferred = lambda step: is_deferred

    def save(self, trainer: Any) -> None:
        self.num_saved += 1


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    callback = Interruption(Saver())  # type: ignore[arg-type]
    callback.on_train_start(TRAINER, None)
    yield callback
    callback.on_train_end(TRAINER, None)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 85), ("SIGUSR1", 85), ("SIGINT", 130)])
def test_a_signal_ends_the_training_after_its_step(interruption: Interruption, name: str, code: int) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    interruption.on_train_batch_start(TRAINER)
    assert interruption.saver.num_saved == 0  # type: ignore[attr-defined]
    interruption.on_train_batch_end(TRAINER, None, None, None, 0)
    assert interruption.saver.num_saved == 1  # type: ignore[attr-defined]
    with pytest.raises(Interrupted, match=rf"{name}: stopped after step 6; .*checkpoints") as end:
        interruption.on_train_batch_start(TRAINER)
    assert end.value.exit_code == code


def test_nothing_happens_without_a_signal(interruption: Interruption) -> None:
    interruption.on_train_batch_end(TRAINER, None, None, None, 1)
    interruption.on_validation_end(TRAINER, None)
    interruption.on_train_batch_start(TRAINER)
    assert interruption.saver.num_saved == 0  # type: ignore[attr-defined]


def test_a_validation_that_decides_something_is_finished_first(interruption: Interruption) -> None:
    interruption.saver = Saver(is_deferred=True)  # type: ignore[assignment]
    os.kill(os.getpid(), signal.SIGTERM)
    interruption.on_train_batch_end(TRAINER, None, None, None, 1)
    interruption.on_validation_start(TRAINER, None)
    interruption.on_validation_end(TRAINER, None)
    with pytest.raises(Interrupted, match="SIGTERM"):
        interruption.on_train_batch_start(TRAINER)


def test_a_second_ctrl_c_ends_it_at_once(interruption: Interruption) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_are_those_before_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    callback = Interruption(Saver())  # type: ignore[arg-type]
    callback.on_train_start(TRAINER, None)
    assert signal.getsignal(signal.SIGTERM) != before
    callback.on_exception(TRAINER, None, ValueError())
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_lightning_has_started_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Interrupted("", signal.SIGTERM).exit_code == 0
    monkeypatch.setenv("RANK", "1")  # torchrun
    assert Interrupted("", signal.SIGTERM).exit_code == 85


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_before_the_steps_ends_the_program_to_be_started_again(name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(Interrupted, match=rf"{name}: .*same command") as end, end_outside_of_steps():
        os.kill(os.getpid(), getattr(signal, name))
    assert end.value.exit_code == 85 and signal.getsignal(getattr(signal, name)) == before


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", signal.SIGTERM), ("SIGUSR1", 0)])
def test_a_forked_process_ends_by_the_signal_of_its_pool_alone(name: str, status: int) -> None:
    """``srun`` sends SIGUSR1 to data workers as well, which are needed until the checkpoint is written."""
    with end_outside_of_steps():
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), getattr(signal, name))
            os._exit(0)
        assert os.waitpid(worker, 0)[1] == status


def test_the_steps_have_their_own_handling() -> None:
    with end_outside_of_steps():
        callback = Interruption(Saver())  # type: ignore[arg-type]
        callback.on_train_start(TRAINER, None)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert callback.received == signal.SIGUSR1
        callback.on_train_end(TRAINER, None)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGUSR1)
