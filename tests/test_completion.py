"""Completion by Tab: words that a command line can go on with, and the script of bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnihuman.completion import SCRIPTS, complete

VERBS = ("curate", "report", "study", "train")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("omnihuman st", ["study "]),
        ("omnihuman nothing da", []),
        ("omnihuman train +exp", ["+experiment="]),
        ("omnihuman train +experiment=favchat_stage", [f"+experiment=favchat_stage{stage}" for stage in (1, 2, 3)]),
        ("omnihuman train da", ["data.", "data="]),
        ("omnihuman train data=json", ["data=json", "data=jsonl"]),
        ("omnihuman train data.re", ["data.records="]),
        ("omnihuman train validation", ["validation."]),
        ("omnihuman train size=7b projector@model.projectors.fa", ["projector@model.projectors.face="]),
        ("omnihuman train model=favchat projector@model.projectors.fa", ["projector@model.projectors.facial="]),
        ("omnihuman train  dry", ["dry_run="]),
        ("omnihuman train data.records=tr", []),
        ("omnihuman study favchat", ["favchat_ablation "]),
        ("omnihuman train --config", ["--config-dir "]),
        ("omnihuman curate st", ["status "]),
        ("omnihuman curate pipeline=cl", ["pipeline=clips "]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert complete(line, VERBS) == words


def test_what_the_shell_keeps_is_left_out() -> None:
    assert complete("omnihuman train projector@model.projectors.fa", VERBS, breaks=" =@") == ["model.projectors.face="]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH that has the program."""
    program = tmp_path / "omnihuman"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom omnihuman.__main__ import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_bash_replaces_the_word(path: str) -> None:
    code = """eval "$(omnihuman --completion bash)"
    COMP_WORDS=(omnihuman train size = n) COMP_LINE="omnihuman train size=n" COMP_POINT=22
    compopt() { :; }
    _omnihuman; printf '%s|' "${COMPREPLY[@]}" """
    environment = {**os.environ, "PATH": path}
    process = subprocess.run(["bash", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout == "nano |" and process.stderr == ""


def test_completion_imports_nothing_heavy() -> None:
    light = "assert not {'torch', 'hydra', 'omegaconf', 'yaml'} & sys.modules.keys()"
    code = f"import sys\nfrom omnihuman.__main__ import main\nmain(['--complete', 'omnihuman train data.'])\n{light}"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from omnihuman.__main__ import main

    assert main(["--completion", "tcsh"]) == 2 and ", ".join(SCRIPTS) in capsys.readouterr().err
