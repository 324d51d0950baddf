"""Studies on the command line: cells that finish, fail and are killed; the table from the predictions alone."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.programs import run_program

SWEEP = {
    "defaults": ["study", "_self_"],
    "title": "Toy",
    "experiment": "humanomni_stage1_face",
    "cells": {
        "mlp": {"label": "an MLP"},
        "linear": {"label": "one layer", "train": ["projector@model.projectors.face=linear_half"]},
        "broken": {"train": ["model.drop=[projectors.nose]"]},
    },
    "baseline": "mlp",
    "scores": {"emotion/war": "emotion WAR"},
    "paper": {"columns": ["DFEW WAR"], "rows": {"mlp": [70.0]}, "source": "nobody", "note": "invented"},
    "claims": [{"text": "depth helps", "better": "mlp", "worse": "linear", "score": "emotion/war"}],
}


def call(module: str, *arguments: str, code: int = 0) -> str:
    """Return the output of a command that must end with an exit code."""
    process = run_program(module, *arguments)
    assert process.returncode == code, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout + process.stderr


@pytest.fixture
def toy(corpus: Path, tmp_path: Path) -> Path:
    common = [
        "data=json",
        f"data.records={corpus}/train.json",
        f"data.root={corpus}",
        "trainer.max_steps=1",
        "data.num_workers=0",
        "recipe.batch_size=2",
        "validate_first=false",
    ]
    emotion = ["benchmark=sample", "benchmark.split=val", f"benchmark.root={corpus}", "cards=2", "limit=4"]
    evaluations = {"emotion": [*emotion, "num_workers=0"]}
    sweep = {**SWEEP, "runs": str(tmp_path / "runs"), "common": common, "evaluations": evaluations}
    (tmp_path / "toy").mkdir()
    OmegaConf.save(OmegaConf.create(sweep), tmp_path / "toy" / "sweep.yaml")
    return tmp_path / "toy"


@pytest.mark.slow
def test_study_reports_failed_cells_and_resumes_killed_ones(toy: Path, tmp_path: Path) -> None:
    output = call("omnihuman.study", str(toy), code=1)
    folder = tmp_path / "runs" / "nano" / "studies" / "toy"
    mlp, linear, broken = (json.loads((folder / f"{cell}.json").read_text()) for cell in ("mlp", "linear", "broken"))
    assert (mlp["status"], linear["status"], broken["status"]) == ("finished", "finished", "failed")
    assert "projectors.nose" in broken["error"] and "projectors.nose" in output
    assert mlp["order_digest"] == linear["order_digest"] != ""
    assert mlp["num_trainable"] > 0 and mlp["flops"] > 0
    table = (folder / "table.md").read_text()
    assert "an MLP" in table and "70.00" in table and "**failed**" in table and "depth helps" in table
    with Image.open(folder / "chart.png") as chart:
        assert chart.size[0] > 300
    assert json.loads((folder / "claims.json").read_text())[0]["verdict"] in ("not shown", "shown", "contradicted")

    # a cell that was killed in its training, and one that was killed in its evaluation
    weights = Path(linear["run"]) / "weights.safetensors"
    weights.unlink()
    predictions = Path(mlp["evaluations"]["emotion"]) / "predictions.jsonl"
    lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join(lines[:2]))
    (folder / "mlp.json").write_text(json.dumps(mlp | {"status": "running"}))
    call("omnihuman.study", str(toy), "cell=mlp,linear", code=1)  # the table still has the broken cell
    resumed = predictions.read_text().splitlines()
    assert [json.loads(line)["id"] for line in resumed] == [json.loads(line)["id"] for line in lines]
    assert weights.is_file()

    # the table again, from the predictions
    table_csv = (folder / "table.csv").read_bytes()
    call("omnihuman.report", f"study={toy}", f"runs={tmp_path}/runs")
    assert (folder / "table.csv").read_bytes() == table_csv
