"""Jobs in processes that may crash or hang: each job has a result or the reason why there is none."""

import gc
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import torch

JobType = TypeVar("JobType")
ResultType = TypeVar("ResultType")

POLL_SECONDS = 1.0
"""Seconds between two looks at the deadlines."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a job has no result.

    Attributes:
        reason: ``crash`` or ``timeout``.
        message: in plain words.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Pool(Generic[JobType, ResultType]):
    """Processes that work through jobs; one that crashes or hangs is replaced.

    Attributes:
        function: maps a job to its result; it raises no error.
        split: maps a job to smaller ones, which are tried alone after a crash; itself alone, if it cannot be split.
        limit: maps a job to the seconds after which its process is ended.
        workers: processes; 0 works in this one, where a crash ends the program.
    """

    function: Callable[[JobType], ResultType]
    split: Callable[[JobType], list[JobType]]
    limit: Callable[[JobType], float]
    workers: int

    def run(self, jobs: Iterable[JobType]) -> Iterator[tuple[JobType, ResultType | Failure]]:
        """Yield each job with its result, in the order in which they are finished."""
        if not self.workers or "fork" not in multiprocessing.get_all_start_methods():
            for job in jobs:
                yield job, self.function(job)
            return
        pending = deque(jobs)
        busy: list[_Worker] = []
        idle: list[_Worker] = []
        try:
            while pending or busy:
                while pending and len(busy) < self.workers:
                    worker = idle.pop() if idle else _Worker(self.function)
                    worker.start(pending.popleft(), self.limit)
                    busy.append(worker)
                for worker in _wait(busy):
                    busy.remove(worker)
                    job, result = worker.finish()
                    if not isinstance(result, Failure):
                        idle.append(worker)
                    elif len(pieces := self.split(job)) > 1:
                        pending.extendleft(reversed(pieces))
                        continue
                    yield job, result
        finally:
            for worker in busy + idle:
                worker.end()


def _wait(busy: "list[_Worker]") -> "list[_Worker]":
    """Return workers that have a result, have ended, or are past their deadline."""
    ready = set(wait([worker.pipe for worker in busy], timeout=POLL_SECONDS))
    now = time.monotonic()
    return [worker for worker in busy if worker.pipe in ready or now > worker.deadline]


@dataclass
class _Worker:
    """A process, and the pipe to it."""

    function: Callable[[Any], Any]
    job: Any = None
    deadline: float = 0.0
    limit: float = 0.0
    pipe: Connection = field(init=False)
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("fork")  # inherits the model and the tokenizer
        self.pipe, end = context.Pipe()
        gc.collect()  # so that the process inherits no garbage, see _serve
        self.process = context.Process(target=_serve, args=(end, self.pipe, self.function), daemon=True)
        self.process.start()
        end.close()

    def start(self, job: Any, limit: Callable[[Any], float]) -> None:
        """Send a job to the process."""
        self.job, self.limit = job, limit(job)
        self.deadline = time.monotonic() + self.limit
        with suppress(OSError):  # the process has ended meanwhile, which `finish` reports
            self.pipe.send(job)

    def finish(self) -> tuple[Any, Any]:
        """Return the job and its result, or the reason why there is none; then the process has ended."""
        job, self.job = self.job, None
        if not self.pipe.poll():
            self.end()
            return job, Failure("timeout", f"not read within {self.limit:g} s, and it could not be stopped")
        try:
            return job, self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
            code = self.process.exitcode
            cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            return job, Failure("crash", f"the process that decodes it has ended ({cause})")

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, parent_end: Connection, function: Callable[[Any], Any]) -> None:
    """Work through jobs until the parent ends."""
    parent_end.close()  # the pipe has to end with the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    torch.set_num_threads(1)
    gc.freeze()  # a forked process that frees FFmpeg objects of its parent waits for threads that do not exist
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(function(job))
