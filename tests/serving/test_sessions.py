"""Uploads that are deleted when nobody needs them, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from omnihuman.serving.conversation import Conversation
from omnihuman.serving.sessions import Sessions


class Talk(Conversation):
    """As much of a conversation as sessions know."""

    def __init__(self) -> None:
        self.is_cleared = False

    def clear(self) -> None:
        self.is_cleared = True


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(Talk, tmp_path / "uploads")


def upload(sessions: Sessions, name: str) -> Path:
    file = sessions.folder / name / "a.mp4"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_a_session_holds_its_last_upload_and_ends_without_any(sessions: Sessions) -> None:
    first, second = upload(sessions, "1"), upload(sessions, "2")
    talk: Any = sessions.of("me")
    sessions.hold("me", first)
    sessions.hold("me", first)
    assert first.exists() and sessions.of("me") is talk
    sessions.hold("me", second)
    assert not first.parent.exists() and second.exists()
    sessions.close("me")
    assert not second.parent.exists() and talk.is_cleared and sessions.of("me") is not talk
    sessions.close("nobody")


def test_what_two_hold_goes_with_the_second(sessions: Sessions) -> None:
    file = upload(sessions, "1")
    for who in ("a", "b"):
        sessions.hold(who, file)
    sessions.close("a")
    assert file.exists()
    sessions.release("b")
    assert not file.exists()


def test_nothing_outside_the_folder_is_deleted(sessions: Sessions, tmp_path: Path) -> None:
    other, neighbour = tmp_path / "other.mp4", upload(sessions, "1").with_name("b.mp4")
    other.touch()
    neighbour.touch()
    link = sessions.folder / "link.mp4"
    link.symlink_to(other)
    for file in (other, link, sessions.folder / "1" / ".." / ".." / "other.mp4"):
        sessions.hold("me", file)
        sessions.release("me")
    sessions.hold("me", neighbour.with_name("a.mp4"))
    sessions.release("me")
    assert other.exists() and neighbour.exists()
