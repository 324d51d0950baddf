"""Disks that are full, and folders of two runs at once."""

from pathlib import Path

import pytest

from tests.faults.training import Training, kill, wait_until


@pytest.mark.faults
@pytest.mark.parametrize(("num_ranks", "strategy"), [(1, "auto"), (2, "fsdp")])
def test_a_full_disk_ends_a_run_that_goes_on_later(num_ranks: int, strategy: str, corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    process = training.start(num_ranks, strategy, file_size=1_000_000)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and "cannot be written" in output and "the same command resumes" in output
    assert not training.has_checkpoint(1) and "Traceback" not in output
    training.finish(num_ranks, strategy)


@pytest.mark.faults
def test_a_second_start_waits_for_the_first(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path)
    first = training.start(1, "auto")
    wait_until(lambda: training.has_checkpoint(2), first)
    second = training.start(1, "auto")
    kill(first)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and training.run.weights.is_file(), output[-3000:]
