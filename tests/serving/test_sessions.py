"""Uploads are deleted when no session uses them, and nothing else is deleted."""

from pathlib import Path
from typing import Any

import pytest

from omnihuman.serving.conversation import Conversation
from omnihuman.serving.sessions import Sessions


class FakeConversation(Conversation):
    """A conversation that records whether it was cleared."""

    def __init__(self) -> None:
        self.is_cleared = False

    def clear(self) -> None:
        self.is_cleared = True


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(FakeConversation, tmp_path / "uploads")


def upload(sessions: Sessions, name: str) -> Path:
    file = sessions.folder / name / "a.mp4"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_session_keeps_its_last_upload_only(sessions: Sessions) -> None:
    first, second = upload(sessions, "1"), upload(sessions, "2")
    sessions.use("me", first)
    sessions.use("me", first)
    assert first.exists()
    sessions.use("me", second)
    assert not first.parent.exists() and second.exists()


def test_closed_session_is_cleared_and_has_no_uploads(sessions: Sessions) -> None:
    file = upload(sessions, "1")
    conversation: Any = sessions.get("me")
    sessions.use("me", file)
    assert sessions.get("me") is conversation
    sessions.close("me")
    assert not file.parent.exists() and conversation.is_cleared and sessions.get("me") is not conversation
    sessions.close("unknown")


def test_shared_upload_is_deleted_with_its_last_session(sessions: Sessions) -> None:
    file = upload(sessions, "1")
    sessions.use("a", file)
    sessions.use("b", file)
    sessions.close("a")
    assert file.exists()
    sessions.release("b")
    assert not file.exists()


def test_files_outside_the_folder_are_not_deleted(sessions: Sessions, tmp_path: Path) -> None:
    other, neighbour = tmp_path / "other.mp4", upload(sessions, "1").with_name("b.mp4")
    other.touch()
    neighbour.touch()
    link = sessions.folder / "link.mp4"
    link.symlink_to(other)
    for file in (other, link, sessions.folder / "1" / ".." / ".." / "other.mp4"):
        sessions.use("me", file)
        sessions.release("me")
    sessions.use("me", neighbour.with_name("a.mp4"))
    sessions.release("me")
    assert other.exists() and neighbour.exists()
