"""Signals that end a training: it is saved at the end of its step, on all ranks, and the program says so."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from omnihuman.pl import pl
from omnihuman.stop import Interrupted, is_child
from omnihuman.training.saver import Saver

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Of schedulers that stop or preempt a job (SLURM, Kubernetes), of ``sbatch --signal=SIGUSR1@120``, and Ctrl-C."""


@contextmanager
def end_outside_of_steps() -> Iterator[None]:
    """Raise ``Interrupted`` at a signal outside of the steps: while a training waits, plans, or validates.

    Nothing is saved then, and the exit code is that of a saved training, so that the job goes back into the queue.
    """
    if is_child() or threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def receive(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            name = signal.Signals(number).name
            raise Interrupted(f"{name}: stopped before or after the steps; the same command goes on", number)
        if number == signal.SIGTERM:  # a process that this one has forked, and ends
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption(pl.Callback):
    """Ends a training after a signal to any of its ranks: a checkpoint is written, then ``Interrupted`` is raised.

    A signal is noticed at the end of an optimizer step, or of a validation: one that decides what is selected is part
    of its step, and Lightning does not repeat it. A second Ctrl-C stops at once, without a checkpoint.

    Differs from Lightning's handling: SIGTERM there ends the program without a checkpoint and with exit code 0, and on
    SLURM a checkpoint is written from within the signal's handler, into the working folder.

    Args:
        saver: writes the checkpoint.
    """

    def __init__(self, saver: Saver) -> None:
        self.saver = saver
        self.received: int | None = None
        self._end: Interrupted | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Handle the signals from here on: before, there is nothing to save."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            self._restore()
            raise KeyboardInterrupt
        self.received = number

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.saver.is_deferred(trainer.global_step):
            self._save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn == "fit":
            self._save(trainer)

    def _save(self, trainer: Any) -> None:
        """Save the training if any rank has received a signal; every rank must call it."""
        numbers = torch.tensor([float(self.received or 0)], device=trainer.strategy.root_device)
        number = int(trainer.strategy.reduce(numbers, reduce_op="max").item())
        if not number:
            return
        self.saver.save(trainer)
        self.saver.background.wait()
        trainer.strategy.barrier()  # launchers kill the processes that are left soon after the first has ended
        name = signal.Signals(number).name
        self._end = Interrupted(
            f"{name}: stopped after step {trainer.global_step}; the same command resumes from {self.saver.folder}",
            number,
        )

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        """End the training, now that the metrics of its last step are logged.

        Raises:
            Interrupted: a checkpoint was written after a signal.
        """
        self._raise()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._raise()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._raise()

    def _raise(self) -> None:
        if self._end is not None:
            raise self._end

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._restore()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        handlers: dict[int, Callable[..., Any]] = self._before
        for number, handler in handlers.items():
            signal.signal(number, handler)
        self._before = {}
