"""Progress on a terminal and in a pipe."""

import io
import sys

import pytest

from omnihuman.corpus.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_a_line_at_once_and_others_later(capsys: pytest.CaptureFixture[str]) -> None:
    items = track(iter("abc"), 3, "clips", every=0.0)
    assert next(items) == "a" and capsys.readouterr().err == "clips: 0 of 3\n"
    assert list(items) == ["b", "c"]
    assert capsys.readouterr().err == "clips: 1 of 3\nclips: 2 of 3\nclips: 3 of 3\n"


def test_a_pipe_gets_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(100), 100, "clips", every=60.0)) == list(range(100))
    assert capsys.readouterr().err.splitlines() == ["clips: 0 of 100", "clips: 100 of 100"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track("abc", 3, "clips")) == ["a", "b", "c"]
    assert "clips" in terminal.getvalue() and "3/3" in terminal.getvalue() and "━" in terminal.getvalue()
