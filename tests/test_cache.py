"""The verb of the cache of features, as a user types it."""

from pathlib import Path

import pytest

from tests.data.test_feature_store import KEYS, fill
from tests.programs import run_program


def run(folder: Path, *arguments: str) -> str:
    process = run_program("omnihuman.cache", *arguments, f"data.features={folder}")
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_size_and_removal(tmp_path: Path) -> None:
    assert "0 features" in run(tmp_path / "nothing", "stat")
    fill(tmp_path, *KEYS[:3])
    text = run(tmp_path, "stat", "data.features_gb=2")
    assert "3 features" in text and "at most 2 GB" in text and "not used for 30 days: 3 features" in text
    assert "3 features removed" in run(tmp_path, "clear", "unused_days=30")
    assert "0 features removed" in run(tmp_path, "clear")


def test_clips_of_a_run_are_encoded(corpus: Path, tmp_path: Path) -> None:
    options = ["+experiment=humanomni_stage1_face", f"data.root={corpus}", f"runs={tmp_path}", "frames=2"]
    first = run(tmp_path / "features", "warm", *options, "data.num_workers=0")
    second = run(tmp_path / "features", "warm", *options, "data.num_workers=0")
    assert "0 features" not in first.splitlines()[-4]
    assert first.splitlines()[-4:] == second.splitlines()[-4:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep"], ["mode=sweep", "stat, warm, clear"]),
        (["stat", "data.features=null"], ["data.features"]),
        (["clear", "unused_days=-1"], ["unused_days=-1"]),
        (["warm"], ["+experiment=humanomni_stage1"]),
        (["warm", "+experiment=humanomni_stage3", "runs={folder}"], ["humanomni_stage1", "train it first"]),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    process = run_program("omnihuman.cache", *[argument.format(folder=tmp_path) for argument in arguments])
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert [word for word in words if word not in process.stderr] == []
