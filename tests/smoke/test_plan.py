"""Forecasts of runs on the command line."""

import json
from pathlib import Path

import pytest

from omnihuman.plan import main


def test_forecast_of_one_cell_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+experiment=humanomni_stage3", "size=7b", "trainer=fsdp", "devices=8"]) == 0
    output = capsys.readouterr().out
    assert "3136 video tokens, 167 audio tokens" in output and "32 729 1152" in output
    forecast, _, notes = output.partition("FLOPs: 2")
    assert "16-bit copies" not in forecast and "gathered" in forecast and "reduced" in forecast and notes
    assert "hours for 100,000 samples with devices=8" in output


def test_sweep_is_a_table_with_the_reasons_of_impossible_cells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    faces = "projector@model.projectors.face=mlp_half,mlp,nowhere"
    assert main(["-m", "+experiment=humanomni_stage3", "frames=4,8,4", faces, f"json={tmp_path}/cells.json"]) == 0
    output = capsys.readouterr().out
    assert "3 of 9 cells are possible" in output
    assert "impossible: fusions.gate: gate" in output and "one shape" in output
    assert "frames=4, projectors.face=nowhere" in output and "Traceback" not in output
    cells = json.loads((tmp_path / "cells.json").read_text())
    assert len(cells) == 9 and sum("impossible" in cell for cell in cells) == 6
    assert cells[0]["parts"][0]["name"] == "encoders.video" and cells[0]["gib"] > 0


def test_exit_code_is_1_without_a_possible_cell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"error: .* holds 10"):
        main(["+experiment=humanomni_stage3", "data.max_tokens=10"])
    assert main(["-m", "+experiment=humanomni_stage3", "data.max_tokens=10,11"]) == 1
    assert "holds 10" in capsys.readouterr().out
