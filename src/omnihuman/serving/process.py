"""A process that serves: where it listens, what it keeps on disk, and its end."""

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_port(host: str, port: int) -> None:
    """Whether somebody may listen there, before a model is loaded for it.

    Raises:
        ValueError: the port is taken, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        why = str(getattr(error, "strerror", error)).partition(" (while")[0]
        raise ValueError(f"host={host} port={port}: {why}; choose another, as in port=8001.") from None


@contextmanager
def private_folder(name: str) -> Iterator[Path]:
    """A folder for what strangers send, which goes with this process; what killed ones have left goes now.

    Args:
        name: of the kind of process.
    """
    for left in Path(tempfile.gettempdir()).glob(f"omnihuman-{name}-*"):
        with suppress(OSError), _locked(left) as said:  # in use, or somebody else's
            if said.st_uid == os.getuid() and time.time() - said.st_mtime > 60:  # a new one is not locked yet
                shutil.rmtree(left, ignore_errors=True)
    made = tempfile.TemporaryDirectory(prefix=f"omnihuman-{name}-", ignore_cleanup_errors=True)
    with made as folder, _locked(Path(folder)):
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[os.stat_result]:
    """Hold a folder, in the eyes of all processes, for as long as this one lives."""
    import fcntl

    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(held)
    finally:
        os.close(held)


def end_with_parent() -> None:
    """End this process soon after the one that started it, which may have been killed and could not say."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
