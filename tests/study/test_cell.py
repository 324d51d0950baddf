"""Cells of a study: which of them go on after a rung of successive halving, and how the rungs are run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.study import __main__ as verb
from omnihuman.study.cell import Outcome, survives

LOSSES = {"a": 0.5, "b": 0.1, "c": 0.3, "d": None}  # d failed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for cell, loss in LOSSES.items():
        outcome = Outcome(cell, "failed" if loss is None else "finished", loss=loss)
        (tmp_path / f"{cell}@10.json").write_text(json.dumps(asdict(outcome)))
    return tmp_path


def halved(rung: int | None) -> Any:
    cells = {cell: {} for cell in LOSSES}
    return OmegaConf.create({"halving": {"steps": [10, 30], "keep": 0.5}, "rung": rung, "cells": cells, "grid": {}})


def test_the_best_half_goes_on(folder: Path) -> None:
    assert all(survives(halved(0), folder, cell) for cell in LOSSES)
    assert {cell for cell in LOSSES if survives(halved(1), folder, cell)} == {"b", "c"}
    with pytest.raises(ValueError, match="no cell is finished at 30 steps; run rung=1 first"):
        survives(halved(None), folder, "b")
    (folder / "b@30.json").write_text(json.dumps(asdict(Outcome("b", "finished", loss=0.2))))
    (folder / "c@30.json").write_text(json.dumps(asdict(Outcome("c", "finished", loss=0.1))))
    assert {cell for cell in LOSSES if survives(halved(None), folder, cell)} == {"c"}


def test_every_rung_is_a_process_and_a_rung_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(verb.subprocess, "run", lambda command, check: started.append(command[3:]))
    monkeypatch.setattr(verb, "run", lambda: None)
    monkeypatch.setattr("omnihuman.study.report.report_study", lambda config: True)
    monkeypatch.setattr(verb.sys, "argv", ["study"])
    assert verb.main(["composition", "threads=1", "--", "frames=4"]) == 0
    shared = ["composition", "threads=1", "also=['frames=4']"]
    assert started == [[*shared, "rung=0"], [*shared, "rung=1"]]
    started.clear()
    assert verb.main([*shared, "rung=1"]) == 0 and not started
