"""A study as a user runs it: cells that finish, fail and are killed; its table from the predictions alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

SWEEP = {
    "defaults": ["study", "_self_"],
    "title": "Toy",
    "experiment": "humanomni_stage1_face",
    "cells": {
        "mlp": {"label": "an MLP"},
        "linear": {"label": "one layer", "train": ["projector@model.projectors.face=linear_half"]},
        "broken": {"train": ["model.drop=[projectors.nose]"]},
    },
    "reference": "mlp",
    "evaluate": {"emotion": ["benchmark=sample", "benchmark.split=val", "cards=2", "limit=4", "num_workers=0"]},
    "scores": {"emotion/war": "emotion WAR"},
    "paper": {"columns": ["DFEW WAR"], "rows": {"mlp": [70.0]}, "source": "nobody", "note": "invented"},
    "claims": [{"text": "depth helps", "better": "mlp", "worse": "linear", "score": "emotion/war"}],
}


def study(folder: Path, *arguments: str, code: int) -> str:
    done = subprocess.run([sys.executable, "-m", "omnihuman.study", str(folder), *arguments], capture_output=True,
                          text=True, check=False, timeout=500)  # fmt: skip
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def toy(corpus: Path, tmp_path: Path) -> Path:
    where = {
        "runs": str(tmp_path / "runs"),
        "common": ["data=jsonl", f"data.records={corpus}/train.json", f"data.root={corpus}", "trainer.max_steps=1",
                   "data.num_workers=0", "stage.batch_size=2", "validate_first=false"],
    }  # fmt: skip
    sweep = json.loads(json.dumps(SWEEP | where))
    sweep["evaluate"]["emotion"].append(f"benchmark.root={corpus}")
    (tmp_path / "toy").mkdir()
    OmegaConf.save(OmegaConf.create(sweep), tmp_path / "toy" / "sweep.yaml")
    return tmp_path / "toy"


def test_a_study_finishes_reports_what_failed_and_goes_on(toy: Path, tmp_path: Path) -> None:
    said = study(toy, code=1)
    folder = tmp_path / "runs" / "nano" / "studies" / "toy"
    outcomes = {cell: json.loads((folder / f"{cell}.json").read_text()) for cell in SWEEP["cells"]}
    assert {cell: one["status"] for cell, one in outcomes.items()} == {
        "mlp": "finished", "linear": "finished", "broken": "failed",
    }  # fmt: skip
    assert "projectors.nose" in outcomes["broken"]["error"] and "projectors.nose" in said
    assert outcomes["mlp"]["order"] == outcomes["linear"]["order"] != ""
    assert outcomes["mlp"]["trained"] > 0 and outcomes["mlp"]["flops"] > 0
    table = (folder / "table.md").read_text()
    assert "an MLP" in table and "70.00" in table and "**failed**" in table and "depth helps" in table
    assert Image.open(folder / "chart.png").size[0] > 300
    assert json.loads((folder / "claims.json").read_text())[0]["verdict"] in ("not shown", "shown", "contradicted")

    # a cell that was killed in its training, and one whose predictions were cut short
    linear = Path(outcomes["linear"]["run"])
    (linear / "weights.safetensors").unlink()
    predictions = Path(outcomes["mlp"]["evaluations"]["emotion"]) / "predictions.jsonl"
    whole = predictions.read_text()
    predictions.write_text("".join(whole.splitlines(keepends=True)[:2]))
    (folder / "mlp.json").write_text(json.dumps(outcomes["mlp"] | {"status": "running"}))
    study(toy, "cell=mlp,linear", code=1)  # the broken one is still broken
    again = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert [one["id"] for one in again] == [json.loads(line)["id"] for line in whole.splitlines()]
    assert (linear / "weights.safetensors").is_file()

    # the table again, from what was written
    before = (folder / "table.csv").read_bytes()
    done = subprocess.run([sys.executable, "-m", "omnihuman.report", f"study={toy}", f"runs={tmp_path}/runs"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "table.csv").read_bytes() == before
