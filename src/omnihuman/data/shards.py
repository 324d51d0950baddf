"""Shards: media files in tar files on a disk or in an object store, each read by one ranged request into memory."""

import hashlib
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.machine import retry

MEMBER = re.compile(
    r"(?P<shard>.*\.tar)/(?P<key>\d+)\.(?P<offset>\d+)\.(?P<size>\d+)\.(?P<crc>[0-9a-f]{8})(?P<suffix>\.\w+)?$"
)
PROTOCOL = re.compile(r"(?P<name>[a-z][a-z0-9+.-]*):/+")
CHECKED_EVERY = 64
"""Clips that a process adds to the cache before it looks at the size of all."""

cache: "ClipCache | None" = None
"""Of this process and the workers that it forks; a source of shards sets it."""


@dataclass(frozen=True, slots=True)
class Member:
    """A media file in a shard.

    Attributes:
        url: of the shard; a path for one on a disk.
        offset: of its first byte in the shard.
        size: in bytes.
        crc: CRC-32 of the bytes.
        suffix: of the file, with its dot.
    """

    url: str
    offset: int
    size: int
    crc: int
    suffix: str


def to_path(base: str, shard: str, key: int, content: tuple[int, int, int], suffix: str) -> Path:
    """Return the path that stands for a member of a shard in records; it tells all that a reader has to know.

    Args:
        base: folder or URL of the shards.
        shard: name of the tar file.
        key: number of the member.
        content: offset, size and CRC-32 of its bytes.
        suffix: of the file.
    """
    offset, size, crc = content
    return Path(f"{base}/{shard}/{key:09}.{offset}.{size}.{crc:08x}{suffix}")


def parse_member(path: Path) -> Member | None:
    """Return the member of a shard that a path stands for, ``None`` for a file.

    >>> parse_member(to_path("s3://bucket/a", "00001.tar", 7, (512, 99, 255), ".mp4"))
    Member(url='s3://bucket/a/00001.tar', offset=512, size=99, crc=255, suffix='.mp4')
    >>> parse_member(Path("a/b.tar/c.mp4"))
    """
    match = MEMBER.match(str(path))
    if match is None:
        return None
    url = PROTOCOL.sub(r"\g<name>://", match["shard"], count=1) if PROTOCOL.match(match["shard"]) else match["shard"]
    return Member(url, int(match["offset"]), int(match["size"]), int(match["crc"], 16), match["suffix"] or "")


@contextmanager
def open_local(path: Path, timeout: float) -> Iterator[Path]:
    """Yield the path of a file with the content of a member of a shard, in memory; that of another file as it is.

    Args:
        path: of a file, or of a member of a shard.
        timeout: seconds for all tries to read it.

    Raises:
        BadSample: the server does not answer in time or has no such bytes, or they are other ones than were packed.
    """
    member = parse_member(path)
    if member is None:
        yield path
        return
    content = read_member(path, member, timeout)
    descriptor = os.memfd_create("clip")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        local = Path(f"/proc/self/fd/{descriptor}")
        try:
            yield local
        except BadSample as bad:
            raise BadSample(bad.reason, str(bad).replace(str(local), str(path))) from bad
    finally:
        os.close(descriptor)


def read_member(path: Path, member: Member, timeout: float) -> bytes:
    """Return the bytes of a member, from the cache if it has them.

    Raises:
        BadSample: see ``open_local``.
    """
    content = None if cache is None else cache.read(member)
    if content is not None and zlib.crc32(content) == member.crc:
        return content
    filesystem, place = _open_filesystem(member.url)

    def fetch() -> bytes:
        data: bytes = filesystem.cat_file(place, start=member.offset, end=member.offset + member.size)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise OSError(f"other bytes than were packed ({len(data)} of {member.size})")
        return data

    try:
        content = _call_within(timeout, lambda: retry(fetch, _is_passing))
    except TimeoutError as error:
        message = f"{path}: the shard is not read within {timeout:g} s (data.timeout)"
        raise BadSample("timeout", f"{message}.") from error
    except ImportError:
        raise
    except Exception as error:  # of the client of any store
        message = f"{path}: the shard cannot be read at present ({type(error).__name__}: {error})"
        raise BadSample("unavailable", f"{message:.500}.") from error
    if cache is not None:
        cache.write(member, content)
    return content


def _is_passing(error: Exception) -> bool:
    return not isinstance(error, ImportError | FileNotFoundError)


def _open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    filesystem, place = url_to_fs(url)
    return filesystem, str(place)


def _call_within(seconds: float, act: Callable[[], bytes]) -> bytes:
    """Return what a function returns; a thread calls it, which a stalled server may hold for ever.

    Raises:
        TimeoutError: it has not returned in time.
        Exception: of the function.
    """
    results: list[bytes] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(act())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


class ClipCache:
    """Members of shards on a local disk, which several processes fill and read; safe to delete.

    Args:
        folder: created on the first write.
        max_bytes: of all members; beyond them those that were not read for longest are deleted.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._num_written = 0

    def read(self, member: Member) -> bytes | None:
        """Return the bytes of a member, ``None`` if it is not there."""
        file = self._find(member)
        try:
            content = file.read_bytes()
            os.utime(file)
        except OSError:
            return None
        return content

    def write(self, member: Member, content: bytes) -> None:
        """Add a member, and delete old ones from time to time."""
        file = self._find(member)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(file)
        except OSError:  # a full disk costs the cache, not the sample
            partial.unlink(missing_ok=True)
        if self._num_written % CHECKED_EVERY == 0:
            self.evict()
        self._num_written += 1

    def evict(self) -> None:
        """Delete the members that were not read for longest, until nine tenths of the bound are left."""
        files = list[tuple[float, int, str]]()
        for folder in self.folder.glob("??"):
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    stat = entry.stat()
                    files.append((stat.st_mtime, stat.st_size, entry.path))
        size = sum(entry[1] for entry in files)
        if size <= self.max_bytes:
            return
        for _, num_bytes, path in sorted(files):
            if size <= 0.9 * self.max_bytes:
                break
            Path(path).unlink(missing_ok=True)
            size -= num_bytes

    def _find(self, member: Member) -> Path:
        digest = hashlib.sha256(repr(member).encode()).hexdigest()[:32]
        return self.folder / digest[:2] / digest
