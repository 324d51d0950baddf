"""Notices: values, errors, signs of life, answers, and nothing of an earlier start."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data import notices
from omnihuman.data.notices import Notices


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat fast."""
    monkeypatch.setattr(notices, "BEAT", 0.05)
    monkeypatch.setattr(notices, "LINGER", 0.5)


def start(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_others_get_the_value_of_the_main_process(tmp_path: Path) -> None:
    file = tmp_path / "run" / "x.start"
    other = Notices(file, "1", is_main=False)
    thread, results = start(lambda: [other.share("a", list), other.share("b", list)])
    main = Notices(file, "1")
    with main.open():
        assert main.share("a", lambda: {"step": 4}) == {"step": 4}
        main.settle()
        main.publish("b", None)  # after the signs of life have ended
        thread.join(5)
    assert results == [[{"step": 4}, None]] and not file.exists()


def test_a_process_alone_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = Notices(None)
    with alone.open(), alone.signs_of_life():
        assert alone.share("a", lambda: 3) == 3
    assert not list(tmp_path.iterdir())


def test_what_a_killed_start_has_left_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "x.start"
    Notices(file, "1").publish("a", "of the killed start")
    other, main = Notices(file, "1", is_main=False), Notices(file, "1")
    thread, results = start(lambda: other.wait("a"))
    thread.join(0.2)
    assert thread.is_alive()
    with main.open():
        thread.join(0.2)
        assert thread.is_alive(), "the new start has not decided yet"
        main.publish("a", "new")
        thread.join(5)
    assert results == ["new"]


def test_a_start_beside_it_does_not_count(tmp_path: Path) -> None:
    other = Notices(tmp_path / "x.start", "1", is_main=False)
    with Notices(tmp_path / "x.start", "2").open():
        assert other.wait("a", lambda: True) is None


def test_an_error_of_the_main_process_ends_the_others(tmp_path: Path) -> None:
    other = Notices(tmp_path / "x.start", "1", is_main=False)
    thread, results = start(lambda: other.wait("a"))
    main = Notices(tmp_path / "x.start", "1", num_places=2)
    with pytest.raises(ValueError, match="no such file"), main.open():
        raise ValueError("no such file")
    thread.join(5)
    assert isinstance(results[0], ChildProcessError) and "no such file" in str(results[0])
    assert not (tmp_path / "x.start").exists()


def test_a_main_process_that_is_gone_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "GONE", 0.2)
    other = Notices(tmp_path / "x.start", "1", is_main=False)
    thread, results = start(lambda: other.wait("b"))
    with Notices(tmp_path / "x.start", "1").open():
        time.sleep(0.5)
    thread.join(5)
    assert isinstance(results[0], ChildProcessError)


def test_the_main_process_gets_the_answers_to_a_notice(tmp_path: Path) -> None:
    file = tmp_path / "x.start"
    Notices(file, "1", place=0, num_places=2).publish("a", 7)
    old = Notices(file, "1", is_main=False, place=1, num_places=2)
    old.gather("a", "of an earlier start")
    other = Notices(file, "1", is_main=False, place=1, num_places=2)
    thread, results = start(lambda: other.gather("a", 10 + other.wait("a")))
    main = Notices(file, "1", place=0, num_places=2)
    with main.open():
        main.publish("a", 1)
        assert main.gather("a", 10) == [10, 11]
        thread.join(5)
    assert results == [[]] and not list(tmp_path.iterdir())


def test_the_main_process_gives_up_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PATIENCE", 0.2)
    with pytest.raises(TimeoutError, match="process 1 has"):
        Notices(tmp_path / "x.start", num_places=2).gather("a", None)


def test_others_give_up_without_a_main_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PATIENCE", 0.2)
    with pytest.raises(TimeoutError, match=r"x\.start.*runs="):
        Notices(tmp_path / "x.start", "1", is_main=False).wait("a")


def test_others_need_no_notice_of_what_they_see(tmp_path: Path) -> None:
    other = Notices(tmp_path / "x.start", "1", is_main=False)
    assert other.share("finished", lambda: False, lambda: True) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(OSError, match=r"x\.start cannot.*runs="), Notices(tmp_path / "runs" / "x.start").open():
        pytest.fail("it was opened")
