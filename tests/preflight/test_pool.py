"""Jobs in processes: one that crashes or hangs costs nothing but its own result."""

import os
import signal
import time

import pytest

from omnihuman.preflight.pool import Failure, Pool

CRASH, HANG = 4, 5


def work(job: tuple[int, ...]) -> list[int]:
    """Return squares; two numbers end the process or never return."""
    for number in job:
        if number == CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == HANG:
            time.sleep(600)
    return [number**2 for number in job]


def split(job: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(number,) for number in job]


def limit(job: tuple[int, ...]) -> float:
    return 1.0 if HANG in job else 60.0


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_every_job_has_its_result(workers: int) -> None:
    pool = Pool(work, split, limit, workers)
    assert sorted(pool.run([(1, 2), (3,), (6,)])) == [((1, 2), [1, 4]), ((3,), [9]), ((6,), [36])]


def test_a_crash_and_a_hang_fail_alone() -> None:
    results = dict(Pool(work, split, limit, 2).run([(1, 2), (3, CRASH), (HANG,), (6,), (7,)]))
    assert results[3,] == [9] and results[6,] == [36] and results[7,] == [49] and results[1, 2] == [1, 4]
    crash, hang = results[CRASH,], results[HANG,]
    assert isinstance(crash, Failure) and crash.reason == "crash" and str(int(signal.SIGKILL)) in crash.message
    assert isinstance(hang, Failure) and hang.reason == "timeout"
    assert len(results) == 6


def test_processes_end_with_the_loop() -> None:
    run = Pool(lambda job: [os.getpid()], split, limit, 2).run([(number,) for number in range(10)])
    _, (worker,) = next(run)
    run.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
