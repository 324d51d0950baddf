"""Cells of a study: selection by successive halving, and the processes of its rungs."""

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig, OmegaConf

from omnihuman import study as verb
from omnihuman.studies.cell import survives_halving
from omnihuman.studies.outcome import Outcome, read_outcome, write_outcome

LOSSES = {"a": 0.5, "b": 0.1, "c": 0.3, "d": None}
"""Cell -> validation loss; the last one failed."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for cell, loss in LOSSES.items():
        status = "failed" if loss is None else "finished"
        write_outcome(tmp_path, Outcome(f"{cell},seed=1@10", status, loss=loss))
    return tmp_path


def list_survivors(folder: Path, rung: int | None) -> list[str]:
    config = build_config(rung)
    return [cell for cell in LOSSES if survives_halving(config, folder, cell)]


def build_config(rung: int | None) -> DictConfig:
    cells = dict.fromkeys(LOSSES)
    halving = {"steps": [10, 30], "fraction": 0.5}
    return OmegaConf.create({"halving": halving, "rung": rung, "cells": cells, "grid": {}, "seeds": [1, 2]})


def test_the_best_half_survives_each_rung(folder: Path) -> None:
    assert list_survivors(folder, 0) == list(LOSSES)
    assert list_survivors(folder, 1) == ["b", "c"]
    write_outcome(folder, Outcome("b,seed=1@30", "finished", loss=0.2))
    write_outcome(folder, Outcome("c,seed=1@30", "finished", loss=0.1))
    assert list_survivors(folder, None) == ["c"]


def test_a_rung_before_its_predecessor_raises(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\b30 steps.*rung=1\b"):
        survives_halving(build_config(None), folder, "b")


def test_an_outcome_is_read_as_written(tmp_path: Path) -> None:
    outcome = Outcome("a", "finished", digest="1f", evaluations={"emotion": "folder"}, seconds=(1.0, 2.0), loss=0.5)
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path, "a") == outcome
    assert outcome.is_current("1f") and not outcome.is_current("2f")
    assert read_outcome(tmp_path, "b") is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({**asdict(Outcome("a", "failed")), "mood": 1})])
def test_an_invalid_outcome_raises(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json: .*outcome .* remove the file"):
        read_outcome(tmp_path, "a")


def test_every_rung_runs_in_a_process_and_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    command_lines: list[list[str]] = []
    monkeypatch.setattr(verb.subprocess, "run", lambda command, check: command_lines.append(command[3:]))
    monkeypatch.setattr(verb, "run", lambda arguments: None)
    complete = SimpleNamespace(is_complete=lambda seeds: True)
    monkeypatch.setattr("omnihuman.studies.report.report_study", lambda config: defaultdict(lambda: complete))
    monkeypatch.setattr("omnihuman.studies.check.check_study", lambda config: None)
    monkeypatch.setattr(verb, "store_study", lambda config: None)
    monkeypatch.setattr(verb.sys, "argv", ["study"])
    assert verb.main(["composition", "threads=1", "--", "frames=4"]) == 0
    arguments = ["composition", "threads=1", "extra_overrides=['frames=4']"]
    assert command_lines == [[*arguments, "rung=0"], [*arguments, "rung=1"]]
    command_lines.clear()
    assert verb.main([*arguments, "rung=1"]) == 0 and not command_lines
