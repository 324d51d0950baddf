"""Sessions of the page: their conversations and their uploads."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from omnihuman.serving.conversation import Conversation


class Sessions:
    """Conversations of the open pages, and the uploads that they use.

    Two sessions that upload the same content share one file: it is deleted when no session uses it any more.

    Args:
        create: return a new conversation.
        folder: of the uploads; nothing outside it is ever deleted.
    """

    def __init__(self, create: Callable[[], Conversation], folder: Path) -> None:
        self.create, self.folder = create, folder.resolve()
        self._conversations: dict[str, Conversation] = {}
        self._files: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def get(self, session: str) -> Conversation:
        """Return the conversation of a session, a new one if it has none."""
        with self._lock:
            return self._conversations.setdefault(session, self.create())

    def use(self, session: str, file: Path) -> None:
        """Mark an upload as used by a session, in place of its other uploads."""
        file = file.resolve()
        with self._lock:
            before = self._files.get(session, set())
            self._files[session] = {file}
            self._delete(before - {file})

    def release(self, session: str) -> None:
        """Release the uploads of a session."""
        with self._lock:
            self._delete(self._files.pop(session, set()))

    def close(self, session: str) -> None:
        """End a session: clear its conversation and release its uploads."""
        with self._lock:
            conversation = self._conversations.pop(session, None)
        if conversation is not None:
            conversation.clear()
        self.release(session)

    def _delete(self, files: set[Path]) -> None:
        """Delete files that no session uses, and their folders."""
        for file in files.difference(*self._files.values()):
            if self.folder not in file.parents:
                continue
            file.unlink(missing_ok=True)
            if file.parent != self.folder:
                with suppress(OSError):  # the folder holds other files
                    file.parent.rmdir()
