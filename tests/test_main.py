"""The program ``omnihuman``: its verbs, and each of them as ``python -m omnihuman.<verb>``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from omnihuman import __version__
from omnihuman.__main__ import find_verbs, main
from omnihuman.build import config_dir
from tests.programs import run_program


def run_python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=300).stdout


def test_verbs_are_the_root_configs() -> None:
    assert sorted(find_verbs()) == sorted(path.stem for path in Path(config_dir()).glob("*.yaml"))


def test_help_has_a_line_for_every_verb_and_imports_nothing() -> None:
    light = "assert not {'torch', 'hydra', 'omegaconf'} & sys.modules.keys()"
    output = run_python("-c", f"import sys\nfrom omnihuman.__main__ import main\nmain(['--help'])\n{light}")
    lines = output.splitlines()[-len(find_verbs()) :]
    for line, (verb, summary) in zip(lines, find_verbs().items(), strict=True):
        assert line.split() == [verb, *summary.split()] and len(line) <= 120


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"omnihuman {__version__}\n"


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2 and re.fullmatch(r"error: trian: .*\btrain\b.*\n", capsys.readouterr().err)
    assert main(["x"]) == 2 and ", ".join(find_verbs()) in capsys.readouterr().err


def test_verb_is_the_same_program_as_its_module() -> None:
    program, module = run_program("omnihuman", "export", "--help"), run_program("omnihuman.export", "--help")
    assert program.returncode == module.returncode == 0 and program.stdout == module.stdout != ""
