"""A serving process: its port, its private folder, and its end."""

import asyncio
import multiprocessing
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_port(host: str, port: int) -> None:
    """Check that a port is free, before a model is loaded.

    Raises:
        ValueError: the port is in use, or this machine does not have the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", error)).partition(" (while")[0]
        raise ValueError(f"host={host} port={port}: {reason}; choose another, as in port=8001.") from None


@contextmanager
def private_folder(name: str) -> Iterator[Path]:
    """Create a folder for uploads that is deleted with this process, and delete those of killed processes.

    Args:
        name: kind of process, part of the folder's name.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"omnihuman-{name}-*"):
        # locking fails for a folder in use or of another user
        with suppress(OSError), _lock_folder(folder) as status:
            # a folder of the last minute may not be locked yet
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > 60:
                shutil.rmtree(folder, ignore_errors=True)
    temporary = tempfile.TemporaryDirectory(prefix=f"omnihuman-{name}-", ignore_cleanup_errors=True)
    with temporary as path, _lock_folder(Path(path)):
        yield Path(path)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[os.stat_result]:
    """Lock a folder for other processes while this one lives, and return its status."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


def end_with_parent() -> None:
    """End this process of ``multiprocessing`` when its parent has ended, also if the parent was killed.

    The parent may have ended before the call: loading a model takes long, and an orphan would keep its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Server(uvicorn.Server):
    """A server that gives the answers in progress some time when it is terminated.

    Args:
        config: of uvicorn.
        seconds: for the answers.
        close: called after that time; requests must end then.
    """

    def __init__(self, config: uvicorn.Config, seconds: float, close: Callable[[], None]) -> None:
        super().__init__(config)
        self.seconds, self.close = seconds, close

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's hook; its own timeout cancels requests without a response."""
        asyncio.get_running_loop().call_later(self.seconds, self.close)
        await super().shutdown(sockets)

    def end(self) -> None:
        """End as by a signal, from any thread."""
        self.should_exit = True
