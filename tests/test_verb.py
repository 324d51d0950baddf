"""Verbs as programs: a user's mistake is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_generate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omnihuman.generate", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
    )


def run_verb(code: str) -> subprocess.CompletedProcess[str]:
    """Run a verb whose function executes the code."""
    program = f"from omnihuman.verb import verb\ndef work(config): exec({code!r})\nverb('plan')(work)()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)


def test_mistake_is_one_line() -> None:
    process = run_generate("run=nothing", "video=nowhere, really [1].mp4", "instruction=Who's there?")
    assert process.returncode == 1
    assert process.stderr == "error: generate: video=nowhere, really [1].mp4: there is no such file.\n"


def test_full_error_has_a_traceback() -> None:
    process = run_generate("run=nothing", "video=nowhere.mp4", "instruction=Who?", HYDRA_FULL_ERROR="1")
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "omnihuman/generate.py" in process.stderr


def test_unknown_size_of_a_part_is_one_line() -> None:
    program = "from omnihuman.verb import verb\nverb('plan')(print)()"
    command = [sys.executable, "-c", program, "encoder/siglip@model.encoders.video=8b"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert process.returncode == 1 and process.stderr.startswith("error: encoder/siglip@model.encoders.video=8b: there")


def test_missing_value_is_named() -> None:
    process = run_generate("video=README.md", "instruction=Who?")
    assert process.returncode == 1 and process.stderr.startswith("error: Missing mandatory value: run")


def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = run_verb(f"import pathlib; pathlib.Path('{tmp_path}/file/out').mkdir()")
    assert process.returncode == 1
    assert process.stderr.startswith("error: [Errno") and process.stderr.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [("BrokenPipeError", 141), ("KeyboardInterrupt", 130)])
def test_interrupted_program_exits_without_a_traceback(error: str, code: int) -> None:
    process = run_verb(f"print('x'); raise {error}")
    assert process.returncode == code and not process.stderr
