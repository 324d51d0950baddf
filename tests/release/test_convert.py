"""A conversion says what becomes of every key, and leaves a whole folder or none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from omnihuman.convert.checkpoint import KeyReport, assign
from omnihuman.release import convert as converting
from omnihuman.release.convert import Piece, Plan, Request, check, convert, copy_tokenizer, said
from omnihuman.release.shards import open_checkpoint
from tests.release.official import Official, write_files, write_official

SHAPES = {"part.a.weight": (2, 3), "part.b.bias": (3,)}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    return write_official(tmp_path_factory.mktemp("official") / "0_5b", "0_5b")


def plan_of(folder: Path, **state: torch.Tensor) -> Plan:
    """``a`` and ``b`` are taken, ``c`` is dropped."""
    folder.mkdir(exist_ok=True)
    write_files(folder, {"a": torch.ones(2, 3), "b": torch.ones(3), "c": torch.ones(1)} | state, "single")
    found = open_checkpoint(folder)
    names = {"a": "part.a.weight", "b": "part.b.bias", "d": "part.d"}
    report = assign(found, names.get, lambda key: "nobody reads it" if key == "c" else None, "the test")
    return Plan((Piece(found, report),), SHAPES, cures={"part.b.*": "give b="})


def test_a_plan_that_holds_and_what_is_said_of_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "x", b=torch.ones(3).bfloat16())
    check(plan)
    text = said(plan, {name: header for name, _, header, _ in plan.taken()})
    assert "taken          1  part.a" in text and "dropped        1  nobody reads it" in text
    assert "2  tensors, 0.0 M values, 1 float32, 1 bfloat16" in text


def test_what_does_not_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a is \[3, 2\], part.a.weight of the model .* is \[2, 3\]"):
        check(plan_of(tmp_path / "1", a=torch.ones(3, 2)))
    with pytest.raises(ValueError, match="a is int64, weights are floats"):
        check(plan_of(tmp_path / "2", a=torch.ones(2, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"1 keys of the checkpoint have no place .*'d'"):
        check(plan_of(tmp_path / "3", d=torch.ones(1)))
    plan = plan_of(tmp_path / "4")
    short = Plan((Piece(plan.pieces[0].checkpoint, KeyReport({"a": "part.a.weight"}, {})),), SHAPES, cures=plan.cures)
    with pytest.raises(ValueError, match=r"1 parameters are in no file, the first \['part.b.bias'\]: give b="):
        check(short)
    twice = Plan((*plan.pieces, *plan_of(tmp_path / "5").pieces), SHAPES)
    with pytest.raises(ValueError, match=r"part.a.weight comes from two places, .*4/model.* \(a\) and .*5/model"):
        check(twice)


def test_requests_that_do_not_hold(official: Official, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source=humanomi: choose from humanomni"):
        convert(Request("humanomi", str(official.folder), tmp_path / "out"))
    with pytest.raises(ValueError, match="dtype=int8: choose from float32"):
        convert(Request("humanomni", str(official.folder), tmp_path / "out", dtype="int8"))
    with pytest.raises(ValueError, match=r"is there already: choose another\."):
        convert(Request("humanomni", str(official.folder), tmp_path, official.options, overwrite=True))


def test_a_folder_appears_whole_or_not_at_all(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    request = Request("humanomni", str(official.folder), out, official.options)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(converting, "write_safetensors", lambda *a, **k: (_ for _ in ()).throw(OSError("no space")))
        convert(request)
    assert not list(tmp_path.iterdir())
    convert(request)
    with pytest.raises(ValueError, match="is there already: choose another, or overwrite=true"):
        convert(request)
    (out / "old").touch()
    convert(Request("humanomni", str(official.folder), out, official.options, overwrite=True))
    assert not (out / "old").exists() and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no tokenizer: give tokenizer="):
        copy_tokenizer(tmp_path, tmp_path / "tokenizer")


def test_the_command(official: Official, tmp_path: Path) -> None:
    words = [f"path={official.folder}", f"out={tmp_path / 'out'}", f"instruction_encoder={official.bert}"]
    command = [sys.executable, "-m", "omnihuman.convert", "source=humanomni", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "missing        0" in ran.stdout and f"generate run={tmp_path / 'out'}" in ran.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode and "overwrite=true" in again.stderr
