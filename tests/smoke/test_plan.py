"""Predicting runs, as a user does."""

import json
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from omnihuman.build import config_dir, register_resolvers
from omnihuman.plan import cells_of, main


def expand(*overrides: str, sweep: bool = True) -> list[list[str]]:
    register_resolvers()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return cells_of(overrides, sweep)


def test_a_sweep_is_every_combination() -> None:
    cells = expand("+experiment=a", "frames=8,16", "seed=range(3)", "stage.lr=choice(1,2)")
    assert len(cells) == 12 and cells[0] == ["+experiment=a", "frames=8", "seed=0", "stage.lr=1"]
    assert len({tuple(cell) for cell in cells}) == 12
    assert expand("data.tasks=[a,b]", "~x.y", sweep=False) == [["data.tasks=[a,b]", "~x.y"]]
    assert len(expand("projector@model.projectors.face=glob(mlp*)")) == 2


@pytest.mark.parametrize(
    ("override", "sweep", "cure"), [("a=1,2", False, "add -m"), ("a=interval(0,1)", True, "range")]
)
def test_what_is_no_sweep_is_refused(override: str, sweep: bool, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        expand(override, sweep=sweep)


def test_one_cell_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+experiment=humanomni_stage3", "size=7b", "trainer=fsdp", "devices=8"]) == 0
    said = capsys.readouterr().out
    assert "3136 video tokens, 167 audio tokens" in said and "32 729 1152" in said
    assert "bf16 copies" in said and "gathered" in said and "hours for 100,000 samples with devices=8" in said


def test_a_sweep_is_a_table_and_the_impossible_is_told_with_its_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    faces = "projector@model.projectors.face=mlp_half,mlp,nowhere"
    assert main(["-m", "+experiment=humanomni_stage3", "frames=4,8,4", faces, f"json={tmp_path}/cells.json"]) == 0
    said = capsys.readouterr().out
    assert "3 of 9 cells are possible" in said
    assert "impossible: gate adds streams of one shape" in said
    assert "nowhere" in said and "Traceback" not in said
    cells = json.loads((tmp_path / "cells.json").read_text())
    assert len(cells) == 9 and sum("impossible" in cell for cell in cells) == 6
    assert cells[0]["parts"][0]["name"] == "encoders.video" and cells[0]["gib"] > 0


def test_where_no_cell_is_possible_the_verb_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+experiment=humanomni_stage3", "data.max_tokens=10"]) == 1
    assert "a packed row holds 10" in capsys.readouterr().out
