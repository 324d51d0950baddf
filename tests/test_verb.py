"""Verbs as programs: a user's mistake is one line, and so is a package that is missing."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from omnihuman.verb import EXTRAS, PLUGINS, verb
from tests.programs import run_program

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
MODULES = {"scikit-learn": "sklearn", "opencv-contrib-python": "cv2", "scenedetect-headless": "scenedetect"}
"""Package -> its module where the names differ."""
INDIRECT = {"starlette"}
"""Modules of the table that come with another package of their extra."""
HIDE = """
import importlib.metadata, sys
hidden = {hidden}
sys.modules.update(dict.fromkeys(hidden))
find = importlib.metadata.distribution
def distribution(name):
    if name in hidden:
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)
importlib.metadata.distribution = distribution
"""
"""Code that hides packages, as if they were not installed."""


def run_generate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_program("omnihuman.generate", *arguments, **environment)


def run_verb(code: str) -> subprocess.CompletedProcess[str]:
    """Run a verb whose function executes the code."""
    program = f"from omnihuman.verb import verb\ndef work(config): exec({code!r})\nverb('plan')(work)()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)


def test_mistake_is_one_line() -> None:
    process = run_program(
        "omnihuman.generate", "run=nothing", "video=nowhere, really [1].mp4", "instruction=Who's there?"
    )
    assert process.returncode == 1
    assert re.fullmatch(r"error: video=nowhere, really \[1\]\.mp4: .*no such file.*\n", process.stderr)


def test_full_error_has_a_traceback() -> None:
    process = run_program(
        "omnihuman.generate", "run=nothing", "video=nowhere.mp4", "instruction=Who?", HYDRA_FULL_ERROR="1"
    )
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "omnihuman/generate.py" in process.stderr


def test_failed_cell_of_a_sweep_is_named(tmp_path: Path) -> None:
    program = "from omnihuman.verb import verb\n@verb('plan')\ndef work(config): raise ValueError('no')\nwork()"
    command = [sys.executable, "-c", program, "-m", "frames=4,8"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert process.returncode == 1 and process.stderr.endswith("error: no\n")
    assert "frames=4" in process.stderr and "Traceback" not in process.stderr


def test_a_cell_reads_what_was_swept(tmp_path: Path) -> None:
    program = """
from hydra.core.hydra_config import HydraConfig
from omnihuman.training.naming import name_cell
from omnihuman.verb import verb
@verb("train", names_cells=True)
def work(config):
    hydra = HydraConfig.get()
    print("name:", name_cell(hydra.overrides.task, hydra.sweeper.params))
work()
"""
    gate = "fusion@model.fusions.gate=gate,weighted_sum"
    command = [sys.executable, "-c", program, "-m", "+experiment=humanomni_stage1", gate, "base=/m/a,/m/b", "frames=4"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    names = [line for line in process.stdout.splitlines() if line.startswith("name:")]
    expected = []
    for fusion in ("gate", "weighted_sum"):
        expected += [f"name: base={base},fusion@model.fusions.gate={fusion}" for base in "ab"]
    assert names == expected, process.stderr


def test_unknown_size_of_a_part_is_one_line() -> None:
    program = "from omnihuman.verb import verb\nverb('plan')(print)()"
    command = [sys.executable, "-c", program, "encoder/siglip@model.encoders.video=8b"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert process.returncode == 1 and process.stderr.startswith("error: encoder/siglip@model.encoders.video=8b: there")


def test_missing_value_is_named() -> None:
    process = run_generate("video=README.md", "instruction=Who?")
    assert process.returncode == 1
    assert re.fullmatch(r"error: run has no value: add run=humanomni_stage3 \(.+\)\.\n", process.stderr)


def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = run_verb(f"import pathlib; pathlib.Path('{tmp_path}/file/out').mkdir()")
    assert process.returncode == 1
    assert process.stderr.startswith("error: [Errno") and process.stderr.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [("BrokenPipeError", 141), ("KeyboardInterrupt", 130)])
def test_interrupted_program_exits_without_a_traceback(error: str, code: int) -> None:
    process = run_verb(f"print('x'); raise {error}")
    assert process.returncode == code and not process.stderr


def run_without(extras: Iterable[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code as if the modules of these extras were not installed."""
    hidden: list[str] = []
    for extra in extras:
        hidden += EXTRAS[extra].split()
    program = HIDE.format(hidden=hidden) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("extra", "arguments", "module"),
    [
        ("serve", ["chat", "run=x"], "fastapi"),
        ("eval", ["evaluate", "run=x", "benchmark=sample"], "cn2an"),
        ("judge", ["report", "folder=.", "judge=endpoint"], "tenacity"),
    ],
)
def test_missing_extra_is_one_line(extra: str, arguments: list[str], module: str) -> None:
    process = run_without([extra], f"from omnihuman.__main__ import main\nmain({arguments})")
    assert process.stderr == f'error: {module} is not installed: pip install "omnihuman[{extra}]"\n'
    assert process.returncode == 1


def test_table_of_extras_is_that_of_the_package() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    installed = set()
    for extra, modules in EXTRAS.items():
        packages = {re.split(r"[<>=\[]", requirement)[0] for requirement in extras[extra]}
        expected = {MODULES.get(package, package.replace("-", "_")) for package in packages}
        assert set(modules.split()) | installed >= expected, extra
        assert set(modules.split()) <= expected, extra
        installed |= expected
    assert {extra for _, extra in PLUGINS.values()} | EXTRAS.keys() == extras.keys() - {
        "all",
        "dev",
        "vllm",
        "docs",
        "lmms-eval",
    }


def test_plugin_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.verb.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"error: hydra/launcher=joblib needs .*omnihuman\[sweep\]"):
        verb("plan")(print)(["-m", "hydra/launcher=joblib"])
