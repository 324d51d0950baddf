"""Notices of the main process of a start to the other ones, before they are connected: a file on a shared disk."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEAT = 1.0
"""Seconds between two signs of life of the main process."""

PATIENCE = 1800.0
"""Seconds without a sign of life after which the other processes give up."""

GONE = 60.0
"""Seconds after which a file that is gone means that the main process has ended: it may be replaced at the moment."""

LINGER = 3.0
"""Seconds for which an error stays readable; the other processes look once a second."""


class Notices:
    """Values that the main process of a start publishes by name, and its signs of life.

    The other processes wait by reading a file again and again, not within a collective call, which would end after its
    timeout: the main process may plan for an hour, or wait for days until another run leaves the folder.

    A notice counts only while its author lives, because launchers do not tell every start from the one before: what a
    process reads first may be of a start that was killed, and counts as soon as the next sign of life follows.

    Args:
        file: on a disk that all processes have; ``None`` for a process without others.
        start: equal for all processes of a start.
        is_main: this process publishes.
        place: number of this process, 0 for the main one, among those that can share work before they are connected;
            ``None`` if it takes no part.
        num_places: number of these processes.
    """

    def __init__(
        self,
        file: Path | None,
        start: str = "",
        *,
        is_main: bool = True,
        place: int | None = 0,
        num_places: int = 1,
    ) -> None:
        self.file, self.start, self.is_main = file, start, is_main
        self.place, self.num_places = place, num_places
        self._session = uuid.uuid4().hex
        self._entries: dict[str, Any] = {}
        self._error: str | None = None
        self._lock = threading.Lock()
        self._is_settled = threading.Event()
        self._first_beat = None if is_main else self._read_any().get("beat")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Give signs of life until ``settle``, tell the others of an error, and delete the file at the end.

        Raises:
            OSError: the file cannot be written.
        """
        if self.file is None or not self.is_main:
            yield
            return
        self._begin()
        try:
            with self.signs_of_life(self._is_settled):
                yield from self._tell_error()
        finally:
            self.file.unlink(missing_ok=True)

    def _begin(self) -> None:
        assert self.file is not None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            raise OSError(f"{self.file} cannot be written ({error}): runs=<folder> names another place.") from error

    def _tell_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not self._is_settled.is_set():  # otherwise the others learn it by their connections
                self._error = f"{type(error).__name__}: {error}"
                self._write()
                if self.num_places > 1:
                    time.sleep(LINGER)
            raise

    def settle(self) -> None:
        """End the signs of life: all processes are connected."""
        self._is_settled.set()

    @contextmanager
    def signs_of_life(self, end: threading.Event | None = None) -> Iterator[None]:
        """Give signs of life until an event, or the end of the block."""
        if self.file is None:
            yield
            return
        done = end or threading.Event()

        def beat() -> None:
            while not done.wait(BEAT):
                with suppress(OSError):  # the next one may succeed
                    self._write()

        thread = threading.Thread(target=beat, daemon=True, name="signs of life")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def share(self, name: str, decide: Callable[[], Any], is_settled: Callable[[], bool] = lambda: False) -> Any:
        """Return what a function returns in the main process; the others wait for it.

        Args:
            name: of the notice.
            decide: returns a value that JSON can hold.
            is_settled: asked by the others while they wait; after true they no longer do, and get ``None``.

        Raises:
            ChildProcessError: the main process has ended.
            TimeoutError: it has given no sign of life.
        """
        if not self.is_main:
            return self.wait(name, is_settled)
        value = decide()
        self.publish(name, value)
        return value

    def publish(self, name: str, value: Any) -> None:
        """Tell the other processes a value that JSON can hold."""
        with self._lock:
            self._entries[name] = value
        if self.file is not None:
            self._write()

    def wait(self, name: str, is_settled: Callable[[], bool] = lambda: False) -> Any:
        """Return a value as soon as the main process has published it; see ``share``.

        Raises:
            ChildProcessError: the main process has ended.
            TimeoutError: it has given no sign of life.
        """
        beat, last, pause = None, time.monotonic(), 0.05
        while True:
            content = self._read()
            if name in content.get("entries", {}):
                return content["entries"][name]
            if is_settled():
                return None
            if content.get("error"):
                raise ChildProcessError(f"the main process has ended: {content['error']}")
            if content.get("beat") not in (None, beat):
                beat, last = content["beat"], time.monotonic()
            silence = time.monotonic() - last
            if beat is not None and not content and silence > GONE:
                raise ChildProcessError("the main process has ended; its output says why.")
            if silence > PATIENCE:
                raise TimeoutError(
                    f"{self.file}: no sign of the main process for {PATIENCE / 60:g} minutes: it has ended, or its "
                    "node has another disk; all nodes need the same folder (runs=)."
                )
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)

    def gather(self, name: str, value: Any) -> list[Any]:
        """Return the values of all processes that share work in the main one, an empty list in the others.

        Args:
            name: of a notice, which all of these processes have read.
            value: of this process, which JSON can hold.

        Raises:
            TimeoutError: a process has given none.
        """
        if not self.is_main:
            assert self.file is not None
            _replace(self._file_of(self.place), {"session": self._session, name: value})
            return []
        values, end = [value], time.monotonic() + PATIENCE
        for place in range(1, self.num_places):
            file = self._file_of(place)
            while (answer := _read(file)).get("session") != self._session or name not in answer:
                if time.monotonic() > end:
                    raise TimeoutError(f"{file}: process {place} has not come for {PATIENCE / 60:g} minutes.")
                time.sleep(0.05)
            values.append(answer[name])
            file.unlink()
        return values

    def _file_of(self, place: int | None) -> Path:
        assert self.file is not None
        return self.file.with_name(f"{self.file.stem}.{place}.start")

    def _read(self) -> dict[str, Any]:
        """Return what the main process of this start has written; nothing before its author is known to live."""
        content = self._read_any()
        if content.get("beat") == self._first_beat:
            return {}
        self._first_beat = ""  # of no process: from now on the file is that of this start
        self._session = content.get("session", "")
        return content

    def _read_any(self) -> dict[str, Any]:
        content = {} if self.file is None else _read(self.file)
        return content if content.get("start") == self.start else {}

    def _write(self) -> None:
        assert self.file is not None
        with self._lock:
            content = {
                "start": self.start,
                "session": self._session,
                "beat": uuid.uuid4().hex,
                "entries": self._entries,
                "error": self._error,
            }
            _replace(self.file, content)


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):  # not there yet
        return {}
    return content


def _replace(file: Path, content: dict[str, Any]) -> None:
    partial = file.with_name(f"partial.{file.name}")
    partial.write_text(json.dumps(content))
    partial.replace(file)
