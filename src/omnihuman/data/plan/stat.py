"""State of a file, by which a change of it is known."""

import os
from pathlib import Path

Stat = tuple[int, int]
"""Size in bytes and time of the last change in ns of a file."""


def stat_file(file: Path | str) -> Stat:
    """Return size and time of a file, ``(-1, -1)`` if it cannot be read."""
    try:
        stat = os.stat(file)
    except (OSError, ValueError):  # a name with a null byte
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
