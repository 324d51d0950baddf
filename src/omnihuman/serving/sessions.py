"""Who talks about what, and which uploads may go."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from omnihuman.serving.conversation import Conversation


class Sessions:
    """The conversations of those who have the page open, and the uploads that they hold.

    Two sessions that upload the same content share one file: it goes when nobody holds it any more.

    Args:
        make: a new conversation.
        folder: where uploads lie; nothing outside it is ever deleted.
    """

    def __init__(self, make: Callable[[], Conversation], folder: Path) -> None:
        self.make, self.folder = make, folder.resolve()
        self._open: dict[str, Conversation] = {}
        self._held: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def of(self, session: str) -> Conversation:
        """The conversation of a session, a new one if it has none."""
        with self._lock:
            return self._open.setdefault(session, self.make())

    def hold(self, session: str, file: Path) -> None:
        """Keep an upload for a session, and let its others go."""
        file = file.resolve()
        with self._lock:
            before = self._held.get(session, set())
            self._held[session] = {file}
            self._delete(before - {file})

    def release(self, session: str) -> None:
        """Let the uploads of a session go."""
        with self._lock:
            self._delete(self._held.pop(session, set()))

    def close(self, session: str) -> None:
        """End a session: its uploads go, and what was said is forgotten."""
        with self._lock:
            conversation = self._open.pop(session, None)
        if conversation is not None:
            conversation.clear()
        self.release(session)

    def _delete(self, files: set[Path]) -> None:
        """Remove files that nobody holds, each with the folder of its own that it lies in."""
        for file in files.difference(*self._held.values()):
            if self.folder not in file.parents:
                continue
            file.unlink(missing_ok=True)
            if file.parent != self.folder:
                with suppress(OSError):  # others lie there, too
                    file.parent.rmdir()
