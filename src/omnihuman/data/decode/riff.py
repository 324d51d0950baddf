"""The header of WAV and CAF files that were written to a pipe."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PLACEHOLDER = 0x7FFFF000
"""Smallest size that stands for an unknown one where the file is shorter: sox's; others write 2^31 - 1 or 2^32 - 1."""

MAX_CHUNKS = 1000
"""Chunks of a file in which the one with the audio must be."""


def has_open_end(path: Path) -> bool:
    """Return True for a WAV or CAF file whose header holds a placeholder for the size of the audio.

    A program that writes to a pipe cannot go back to fill the size in. The audio ends where the file ends.

    Reference: EBU Tech 3306 for the 64-bit sizes of RF64 and BW64; Apple's CAF specification for its size of -1.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:] == b"WAVE":
            size = _read_riff_size(file)
            return size == 0 or (size is not None and size >= PLACEHOLDER and size > path.stat().st_size)
        if head[:4] == b"caff":
            file.seek(8)
            return (b"data", -1) in _iterate_chunks(file, ">4sq", padding=1)
    return False


def _read_riff_size(file: BinaryIO) -> int | None:
    """Return the size of the audio; ``None`` for a file without audio."""
    long_size = None
    for name, size in _iterate_chunks(file, "<4sI", padding=2):
        if name == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data":
            return size if long_size is None else long_size
    return None


def _iterate_chunks(file: BinaryIO, layout: str, padding: int) -> Iterator[tuple[bytes, int]]:
    """Yield names and sizes of chunks; the file is then at the content of the chunk."""
    for _ in range(MAX_CHUNKS):
        head = file.read(struct.calcsize(layout))
        if len(head) < struct.calcsize(layout):
            return
        name, size = struct.unpack(layout, head)
        start = file.tell()
        yield name, size
        if not 0 <= size < 1 << 62:
            return
        file.seek(start + size + size % padding)
