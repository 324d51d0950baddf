"""A machine's disk: errors that say nothing about a file, a second try, and waiting until it has all."""

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

MACHINE_ERRORS = {
    errno.EACCES,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""Errors of a disk, a permission or a limit, which say nothing about the contents of a file.

EPERM is none of them: it is -1, by which formats of FFmpeg mean a damaged file."""

PAUSES = (0.1, 1.0)
"""Seconds before the second and the third try."""

MAX_VAIN = 20
"""Vain tries one after the other after which no more are made until something succeeds: a disk is away, or locked."""

Result = TypeVar("Result")

_vain: deque[None] = deque(maxlen=MAX_VAIN)


def retry(act: Callable[[], Result], is_passing: Callable[[Exception], bool]) -> Result:
    """Return what a function returns; after an error that may pass it is called again, three times in all.

    Args:
        act: the function.
        is_passing: says of an error whether it may pass.

    Raises:
        Exception: of the last call, or the first one that does not pass.
    """
    for pause in (*PAUSES, None):
        try:
            result = act()
        except Exception as error:
            if not is_passing(error):
                raise
            if pause is None or len(_vain) >= MAX_VAIN:
                _vain.append(None)
                raise
            time.sleep(pause)
        else:
            _vain.clear()
            return result
    raise AssertionError


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
