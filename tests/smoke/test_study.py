"""Studies on the command line: cells that finish, fail and are killed; the table from the predictions alone."""

import json
from collections.abc import Callable
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
        "broken": {"train": ["data.records=nowhere.json"]},
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
    output = call("omnihuman.study", str(toy / "sweep.yaml"), code=1)
    folder = tmp_path / "runs" / "nano" / "studies" / "toy"
    names = [f"{cell},seed=42.json" for cell in ("mlp", "linear", "broken")]
    mlp, linear, broken = (json.loads((folder / name).read_text()) for name in names)
    assert (mlp["status"], linear["status"], broken["status"]) == ("finished", "finished", "failed")
    assert "nowhere.json" in broken["error"] and "nowhere.json" in output
    assert mlp["order_digest"] == linear["order_digest"] != ""
    assert mlp["num_trainable"] > 0 and mlp["flops"] > 0
    table = (folder / "table.md").read_text()
    assert "an MLP" in table and "70.00" in table and "**failed**" in table and "depth helps" in table
    with Image.open(folder / "chart.png") as chart:
        assert chart.size[0] > 300
    assert json.loads((folder / "claims.json").read_text())[0]["verdict"] == "one seed: a run, no verdict"

    # a cell that was killed in its training, and one that was killed in its evaluation
    weights = Path(linear["run"]) / "weights.safetensors"
    weights.unlink()
    predictions = Path(mlp["evaluations"]["emotion"]) / "predictions.jsonl"
    lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join(lines[:2]))
    (folder / "mlp,seed=42.json").write_text(json.dumps(mlp | {"status": "running"}))
    call("omnihuman.study", str(toy), "cell=mlp,linear", code=1)  # the table still has the broken cell
    resumed = predictions.read_text().splitlines()
    assert [json.loads(line)["id"] for line in resumed] == [json.loads(line)["id"] for line in lines]
    assert weights.is_file()

    # the table again, from the predictions
    table_csv = (folder / "table.csv").read_bytes()
    assert call("omnihuman.report", "study=toy", f"runs={tmp_path}/runs", "format=csv").startswith(table_csv.decode())
    assert (folder / "table.csv").read_bytes() == table_csv


@pytest.mark.slow
def test_a_study_from_a_base_trains_every_seed_on_it(
    toy: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    base = model_folder("humanomni_stage1")  # with more parts than the projector that a cell replaces
    call("omnihuman.study", str(toy), "seeds=[1,2]", "cell=mlp,linear", "--", f"base={base}", code=1)
    folder = tmp_path / "runs" / "nano" / "studies" / "toy"
    weights = set()
    for seed in (1, 2):
        outcome = json.loads((folder / f"mlp,seed={seed}.json").read_text())
        assert outcome["status"] == "finished" and outcome["seconds"][0] == outcome["seconds"][1]
        weights.add((Path(outcome["run"]) / "weights.safetensors").read_bytes())
        assert str(base) in (Path(outcome["run"]) / "config.yaml").read_text()
    assert len(weights) == 2
    assert " ± " in (folder / "table.md").read_text()
    message = call("omnihuman.study", str(toy), "seeds=[1,2]", code=1)
    assert "toy.linear,seed=1 holds another run" in message and "study=" in message
