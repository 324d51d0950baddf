"""Processes of one training: when one of them ends, the others say which, and none is left behind."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from omnihuman.data.loader import explain_worker_error
from omnihuman.stop import is_child

SIGNS = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited", "Timed out waiting")
"""Parts of the messages of gloo and NCCL about a process that does not answer."""

OBSERVER = "lightning.fabric.strategies.launchers.subprocess_script"
"""Logger of Lightning's thread that kills all processes of a node when one of those that it has started fails."""

PATIENCE = 3.0
"""Seconds until the end of a process is known: its connections close before."""

GRACE = 10.0
"""Seconds after the end of its launcher in which a process can end by itself."""


@contextmanager
def explain_ended_process(trainer: Any) -> Iterator[None]:
    """Raise the error of a lost connection as one that names the rank that has ended, and that of a data worker.

    torch raises the latter wherever this process is at that moment, in a training step too.

    Raises:
        ChildProcessError: another process of the training has ended, or does not answer.
    """
    logging.getLogger(OBSERVER).setLevel(logging.INFO)  # it names the process before it kills this one
    try:
        yield
    except RuntimeError as error:
        explained = explain_worker_error(error)
        if explained is not error:
            raise explained from error
        if trainer.world_size == 1 or not any(sign in str(error) for sign in SIGNS):
            raise
        processes = getattr(trainer.strategy.launcher, "procs", ())
        raise ChildProcessError(
            f"{_describe_ended(processes)} The same command resumes from the last checkpoint."
        ) from error


def _describe_ended(processes: Sequence[Any]) -> str:
    """Return which of the processes that this one has started has ended: those of local rank 1, 2, ...

    A process that has started no others waits as long, so that it does not end before it is known which was the first.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for rank, process in enumerate(processes, start=1):
            code = process.poll()
            if code:
                cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"local rank {rank} (process {process.pid}) {cause}."
        time.sleep(0.05)
    return "another rank has ended, or does not answer: its output, or that of the program that started it, says why."


@cache
def end_with_launcher() -> None:
    """End this process soon after the one that started it, if that was Lightning: collectives would wait for ever."""
    if is_child():
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="launcher").start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
