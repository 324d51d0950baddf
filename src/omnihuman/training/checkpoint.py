"""Checkpoints: folders of JSON and safetensors, complete or not there, without pickles.

``checkpoints/step=500.ckpt`` holds the state of a training without its frozen parameters: numbers and texts in
``state.json``, tensors in ``state.safetensors``, and the shards of a sharded run in ``shards/``. ``complete.json``
lists its files with their sizes and checksums. It is written last, and only then the folder gets its name.
"""

import json
import logging
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omnihuman.data.machine import sync

log = logging.getLogger(__name__)

COMPLETE = "complete.json"
STATE = "state.json"
TENSORS = "state.safetensors"
SHARDS = "shards"
PARTIAL = "partial."
"""Beginning of the name of a folder that is being written."""

CHUNK = 2**24
"""Bytes that are read at a time for a checksum."""

READERS = 4
"""Files that a process reads at the same time for their checksums."""

RUN = "run"
"""Key of the state with the digest of the run that it belongs to."""

NAME = re.compile(r"step=(\d+)\.ckpt")
"""Name of a checkpoint, with the number of optimizer steps before it."""


def open_partial(folder: Path) -> Path:
    """Return an empty folder beside a checkpoint, in which it is written."""
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def seal(partial: Path, folder: Path, checksums: Mapping[str, int]) -> None:
    """Give a written checkpoint its name, once all of it is on the disk.

    Args:
        partial: the folder in which it was written.
        folder: its name.
        checksums: file -> checksum, of files whose writer has computed it already; others are read.

    Raises:
        ValueError: a file that another rank has written is not there.
    """
    files = {}
    written = sorted(path for path in partial.rglob("*") if path.is_file())
    if missing := set(checksums).difference(path.relative_to(partial).as_posix() for path in written):
        raise ValueError(f"{partial}: {sorted(missing)[0]} of another node is not there: runs= needs a shared disk.")
    for path in written:
        name = path.relative_to(partial).as_posix()
        checksum = checksums[name] if name in checksums else compute_checksum(path)
        files[name] = {"bytes": path.stat().st_size, "crc32": checksum}
        sync(path)
    (partial / COMPLETE).write_text(json.dumps(files))
    sync(partial / COMPLETE)
    sync(partial)
    remove(folder)  # of an earlier start of the run that was resumed from a checkpoint before it
    partial.rename(folder)
    sync(folder.parent)


def find_newest(
    folder: Path, check: Callable[[Path], str | None] | None = None, *, run: str | None = None
) -> Path | None:
    """Return the newest checkpoint of a folder that is complete, ``None`` if there is none.

    What is passed over is logged.

    Args:
        folder: of the checkpoints.
        check: returns what is wrong with a checkpoint; ``None``: ``find_damage``.
        run: digest of the run whose checkpoint it must be; ``None`` for any.

    Raises:
        ValueError: there are checkpoints, but all of them are damaged.
    """
    problems: list[str] = []
    for checkpoint in list_checkpoints(folder):
        problem = find_damage(checkpoint)
        if problem is None and run is not None and _read_run(checkpoint) != run:
            problem = "it belongs to another run"
        if problem is None and check is not None:
            problem = check(checkpoint)
        if problem is None:
            for line in problems:
                log.warning("passed over: %s", line)
            return checkpoint
        problems.append(f"{checkpoint}: {problem}")
    if problems:
        raise ValueError(f"no checkpoint can be read: {'; '.join(problems)}. To start again: overwrite=true.")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return everything in a folder that is named like a checkpoint, the newest first."""
    checkpoints = [path for path in folder.glob("step=*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(checkpoints, key=checkpoint_step, reverse=True)


def checkpoint_step(path: Path) -> int:
    """Return the number of optimizer steps before a checkpoint, from its name ``step=<number>.ckpt``."""
    return int(path.stem.removeprefix("step="))


def find_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, ``None`` if all its files are there with their sizes."""
    try:
        expected = _read_files(checkpoint)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return f"it has no {COMPLETE} of this program"
    for name, (size, _) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
    return None


def find_change(checkpoint: Path, place: int = 0, num_places: int = 1) -> str | None:
    """Return which file of a complete checkpoint is not what was written, ``None`` if all are.

    Args:
        checkpoint: all files are there with their sizes.
        place: number of this process among those that check a share of the files: on as many ranks as have written
            the checkpoint, the shard that the rank reads afterwards.
        num_places: number of these processes.
    """

    def compare(name: str, checksum: int) -> str | None:
        try:
            is_same = compute_checksum(checkpoint / name) == checksum
        except OSError as error:
            return f"{name} cannot be read ({error})"
        return None if is_same else f"{name} has changed since it was written"

    share = sorted(_read_files(checkpoint).items())[place::num_places]
    with ThreadPoolExecutor(READERS) as pool:
        problems = list(pool.map(lambda entry: compare(entry[0], entry[1][1]), share))
    return next((problem for problem in problems if problem is not None), None)


def _read_files(checkpoint: Path) -> dict[str, tuple[int, int]]:
    """Return size and checksum of every file of a checkpoint."""
    files = json.loads((checkpoint / COMPLETE).read_text())
    return {str(name): (int(entry["bytes"]), int(entry["crc32"])) for name, entry in files.items()}


def delete_old(folder: Path, num_kept: int) -> None:
    """Delete all checkpoints but the newest ones that are complete, and what was never completed."""
    complete = 0
    for checkpoint in list_checkpoints(folder):
        if complete >= num_kept:
            remove(checkpoint)
        elif find_damage(checkpoint) is None:
            complete += 1
    for partial in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)


def _read_run(checkpoint: Path) -> Any:
    """Return the digest of the run that a checkpoint belongs to, ``None`` where it has none."""
    try:
        return json.loads((checkpoint / STATE).read_text()).get(RUN)
    except (OSError, ValueError, AttributeError):
        return None


def remove(path: Path) -> None:
    """Delete a folder, or a file that was named like one, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def compute_checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


class Background:
    """Runs one task at a time in a thread, if it is asynchronous; an error of a task is raised by the next call.

    Args:
        is_asynchronous: ``submit`` returns before the task is done.
    """

    def __init__(self, is_asynchronous: bool) -> None:
        self.is_asynchronous = is_asynchronous
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def submit(self, task: Callable[[], None]) -> None:
        """Run a task after the one before."""
        self.wait()
        if not self.is_asynchronous:
            task()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = self._pool.submit(task)

    def wait(self) -> None:
        """Wait for the task, and raise its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
