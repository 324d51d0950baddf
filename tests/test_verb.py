"""Verbs as programs: what a user wrote wrong is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnihuman.verb import verbatim


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "omnihuman.generate", *arguments], capture_output=True, text=True,
                          check=False, timeout=300, env={**os.environ, **environment})  # fmt: skip


def test_a_mistake_is_told_in_one_line() -> None:
    done = run("run=nothing", "video=nowhere, really [1].mp4", "instruction=Who's there?")
    assert done.returncode == 1
    assert done.stderr == "error: generate: video=nowhere, really [1].mp4: there is no such file.\n"


def test_where_it_happened_can_be_seen() -> None:
    done = run("run=nothing", "video=nowhere.mp4", "instruction=Who?", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1 and "Traceback" in done.stderr and "in record_of" in done.stderr


def test_what_must_be_said_is_named() -> None:
    done = run("video=README.md", "instruction=Who?")
    assert done.returncode == 1 and done.stderr.startswith("error: Missing mandatory value: run")


def test_a_folder_of_a_sweep_is_a_path() -> None:
    assert verbatim("run=runs/nano/x/base=y", ()) == "run='runs/nano/x/base=y'"
    assert verbatim("variant=base=y", ()) == "variant='base=y'"  # as the end of a training says it
    assert verbatim("run=a,b", ()) == "run=a,b" and verbatim("stage.lr=1", ("lr",)) == "stage.lr=1"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = said_by(f"import pathlib; pathlib.Path('{tmp_path}/taken/out').mkdir()")
    assert done.returncode == 1 and done.stderr.startswith("error: [Errno") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [("BrokenPipeError", 141), ("KeyboardInterrupt", 130)])
def test_who_stops_reading_or_stops_it_sees_no_traceback(error: str, code: int) -> None:
    done = said_by(f"print('x'); raise {error}")
    assert done.returncode == code and not done.stderr


def said_by(work: str) -> subprocess.CompletedProcess[str]:
    program = f"from omnihuman.verb import verb\ndef work(config): exec({work!r})\nverb('plan')(work)()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
