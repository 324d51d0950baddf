"""The end of a program that a signal has asked for, and its exit code."""

import os
import signal

REQUEUE = 85
"""Exit code of a training that was saved after SIGTERM or SIGUSR1: the same command goes on with it."""


def is_child() -> bool:
    """Return true in a process that Lightning has started in the first one of its node, not torchrun or srun."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "RANK" not in os.environ


class Interrupted(Exception):
    """A signal has ended the work, and what was done is saved.

    Args:
        message: what was done, and how to go on.
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, as of every program; 85 after another signal.

        A process that Lightning has started returns 0: it kills the other processes, which may still be writing, as
        soon as one fails.
        """
        if is_child():
            return 0
        return 128 + signal.SIGINT if self.number == signal.SIGINT else REQUEUE
