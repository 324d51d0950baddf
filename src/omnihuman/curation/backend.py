"""Backends: workers that run partitions by their numbers, spawned here, on a cluster of Ray, or this process alone."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

from omnihuman.curation.listing import Listing
from omnihuman.curation.pipeline import Level, Pipeline
from omnihuman.curation.run import decide, is_decided, run_partition
from omnihuman.operator.base import Global, Operator

POLL_SECONDS = 1.0


class Worker:
    """Runs partitions of a pipeline in one process; each operator is set up when its first partition comes."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._ready: dict[str, Operator] = {}

    def get(self, level: Level) -> Operator:
        """Return the operator of a level, set up; a global one is set up once for both of its levels."""
        if level.name not in self._ready:
            home = self.pipeline.levels[level.number - level.is_decision].folder  # of the rows that it decides on
            home.mkdir(parents=True, exist_ok=True)
            level.operator.setup(home)
            self._ready[level.name] = level.operator
        return self._ready[level.name]

    def run(self, numbers: Sequence[int], part: int) -> None:
        """Run a partition through levels."""
        for number in numbers:
            run_partition(self.pipeline, number, part, self.get)

    def decide(self, number: int) -> None:
        """Write the decision of a global operator."""
        operator = self.get(self.pipeline.levels[number])
        assert isinstance(operator, Global)
        decide(self.pipeline, number, operator)


_worker: Worker | None = None


def _start(pipeline: Pipeline) -> None:
    """Prepare a worker process, which ends with the process that has started it."""
    global _worker
    _worker = Worker(pipeline)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # a killed parent leaves no orphans


def _run(numbers: Sequence[int], part: int) -> None:
    assert _worker is not None
    _worker.run(numbers, part)


def _decide(number: int) -> None:
    assert _worker is not None
    _worker.decide(number)


@dataclass(frozen=True)
class Backend:
    """Runs partitions by their numbers; rows stay on the disk that all workers share.

    Attributes:
        run: (levels, parts) -> None: runs the partitions through the levels where their files are missing.
        decide: (level) -> None: writes the decision of a global operator.
    """

    run: Callable[[Sequence[Level], Sequence[int]], None]
    decide: Callable[[Level], None]


def open_backend(name: str, pipeline: Pipeline, num_workers: int | None) -> AbstractContextManager[Backend]:
    """Return a backend by its name, to be used in a ``with`` statement.

    Args:
        name: ``embedded`` or ``ray``.
        pipeline: to run.
        num_workers: processes, of Ray those of an operator; ``None``: one for each core; 0: this process.

    Raises:
        ValueError: there is no such backend.
    """
    if name == "embedded":
        num_cores = len(os.sched_getaffinity(0))
        return open_workers(pipeline, num_cores if num_workers is None else num_workers)
    if name == "ray":
        from omnihuman.curation.cluster import open_ray

        return open_ray(pipeline, num_workers)
    raise ValueError(f"backend={name}: choose embedded or ray.")


@contextmanager
def open_workers(pipeline: Pipeline, num_workers: int) -> Iterator[Backend]:
    """Start worker processes, or none: then the partitions run in this process.

    Raises:
        ValueError: a worker has been killed, as by a machine without enough memory.
    """
    if num_workers == 0:
        worker = Worker(pipeline)

        def run_here(levels: Sequence[Level], parts: Sequence[int]) -> None:
            for part in parts:
                worker.run(list_missing(levels, part), part)

        yield Backend(run_here, lambda level: worker.decide(level.number))
        return
    # a forked child of a process with threads may hang
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), _start, (pipeline,))

    def run(levels: Sequence[Level], parts: Sequence[int]) -> None:
        missing = {part: list_missing(levels, part) for part in parts}
        wait([pool.submit(_run, numbers, part) for part, numbers in missing.items() if numbers])

    def wait(futures: Sequence[Future[None]]) -> None:
        try:
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker has been killed, perhaps for memory: give the same command with fewer workers=; finished "
                "partitions stay."
            ) from error

    try:
        yield Backend(run, lambda level: wait([pool.submit(_decide, level.number)]))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def list_missing(levels: Sequence[Level], part: int) -> list[int]:
    """Return the numbers of the levels whose file of a partition is missing."""
    return [level.number for level in levels if not level.file(part).is_file()]


def run_pipeline(
    pipeline: Pipeline, parts: Sequence[int], num_workers: int | None, wait: float, backend: str = "embedded"
) -> None:
    """Run the partitions of this slice through all levels.

    Args:
        pipeline: to run.
        parts: numbers of the partitions of this slice.
        num_workers: processes; 0: this one; ``None``: one for each core.
        wait: seconds for which a global operator waits for partitions of other slices.
        backend: ``embedded`` or ``ray``.

    Raises:
        ValueError: too many rows fail, a worker is killed, the disk is full, or partitions of other slices are missing.
    """
    source = pipeline.levels[0]
    assert isinstance(source.operator, Listing)
    source.operator.save(source.folder)
    with open_backend(backend, pipeline, num_workers) as workers:
        for segment in pipeline.segments:
            first = segment[0]
            if first.is_decision and not is_decided(pipeline, first.number, first.operator):
                wait_for_parts(pipeline, first, wait)
                workers.decide(first)
            workers.run(segment, parts)


def wait_for_parts(pipeline: Pipeline, level: Level, seconds: float) -> None:
    """Wait until all partitions that a global operator decides on are there.

    Raises:
        ValueError: some are still missing in the end.
    """
    above = pipeline.levels[level.number - 1]
    end = time.monotonic() + seconds
    while True:
        missing = [part for part in range(pipeline.num_parts) if not above.file(part).is_file()]
        if not missing:
            return
        if time.monotonic() >= end:
            raise ValueError(
                f"{level.name} decides on all {pipeline.num_parts} partitions, and other slices have not finished "
                f"{len(missing)} of them: give the same command when they have, or wait=3600 seconds for them."
            )
        time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
