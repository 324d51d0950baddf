"""A second try after an error of the machine."""

import errno
from collections.abc import Iterator

import pytest

from omnihuman.data import machine


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Return the pauses that were made."""
    pauses: list[float] = []
    monkeypatch.setattr(machine.time, "sleep", pauses.append)
    machine._vain.clear()
    yield pauses
    machine._vain.clear()


class Disk:
    """Fails so many times."""

    def __init__(self, num_errors: int, error: Exception) -> None:
        self.num_errors, self.error = num_errors, error

    def __call__(self) -> str:
        self.num_errors -= 1
        if self.num_errors >= 0:
            raise self.error
        return "content"


def is_passing(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in machine.MACHINE_ERRORS


def test_a_passing_error_leads_to_another_try(pauses: list[float]) -> None:
    assert machine.retry(Disk(2, OSError(errno.EIO, "")), is_passing) == "content" and len(pauses) == 2
    with pytest.raises(OSError):
        machine.retry(Disk(3, OSError(errno.EIO, "")), is_passing)
    with pytest.raises(FileNotFoundError):
        machine.retry(Disk(1, FileNotFoundError(errno.ENOENT, "")), is_passing)
    assert len(pauses) == 4


def test_a_disk_that_is_away_is_not_waited_for_again_and_again(pauses: list[float]) -> None:
    for _ in range(1000):
        with pytest.raises(OSError):
            machine.retry(Disk(3, OSError(errno.ESTALE, "")), is_passing)
    assert len(pauses) == 2 * machine.MAX_VAIN
    assert machine.retry(Disk(0, OSError()), is_passing) == "content"
    assert machine.retry(Disk(1, OSError(errno.EIO, "")), is_passing) == "content"
