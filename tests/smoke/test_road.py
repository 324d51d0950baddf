"""The road of a student: clips and a table of labels are checked, trained on, evaluated, compared and set in LaTeX."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.programs import run_program

LABELS = {"happy": "joy", "sad": "sorrow", "angry": "wrath", "fear": "fright", "disgust": "dégoût", "neutral": "calm"}
"""Emotion of the corpus -> label of the student."""

TINY = ["frames=2", "data.num_workers=0", "data.features=null", "recipe.batch_size=8", "validate_first=false"]

SWEEP = {
    "defaults": ["study", "_self_"],
    "title": "How the branches are joined",
    "experiment": "finetune",
    "grid": {"fusion": {"gate": [], "sum": ["fusion@model.fusions.gate=weighted_sum_learned"]}},
    "seeds": [1, 2, 3],
    "evaluations": {"emotion": ["benchmark=records", "benchmark.path=mine/test.json", "num_workers=0", "cards=0"]},
    "scores": {"emotion/war": "WAR", "emotion/uar": "UAR"},
    "claims": [{"text": "the gate beats the sum", "better": "gate", "worse": "sum", "score": "emotion/war"}],
}


def call(verb: str, *arguments: str) -> str:
    """Return the output of a verb that must succeed."""
    process = run_program(f"omnihuman.{verb}", *arguments)
    assert process.returncode == 0, f"{verb}: {process.stdout[-3000:]}{process.stderr[-3000:]}"
    return process.stdout + process.stderr


@pytest.fixture
def clips(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with clips and a table of a student's own labels."""
    (tmp_path / "clips").mkdir()
    rows = {}
    for split in ("train", "val"):
        for record in json.loads((corpus / f"{split}.json").read_text()):
            meta = record["meta"]
            if "video" not in record or meta["emotion"] not in LABELS:
                continue
            name = Path(record["video"]).name
            if name not in rows:
                shutil.copyfile(corpus / record["video"], tmp_path / "clips" / name)
            place = "test" if split == "val" and meta["identity"] % 2 else split
            rows[name] = [f"clips/{name}", LABELS[meta["emotion"]], place, f"P{meta['identity']}"]
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([["clip", "emotion", "split", "person"], *rows.values()])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_records() -> None:
    """Type the first two commands."""
    columns = ["video=clip", "answer=emotion", "split=split", "person=person"]
    call("records", "source=table", "path=labels.csv", *columns, "out=mine/")
    assert "problem" not in call("inspect", "data=mine/", "decode=true", "frames=2", "workers=0")


def test_from_a_table_to_scores(clips: Path, model_folder: Callable[[str], Path]) -> None:
    make_records()
    base = model_folder("humanomni_stage1_face")
    output = call("train", "+experiment=finetune", f"base={base}", "data=mine/", *TINY)
    assert "benchmark.path=mine/test.json" in output and "(selected)" in output
    (run,) = Path("runs/nano/finetune").glob("base=*/")
    ledger = json.loads((run / "ledger.json").read_text())
    num_records = len(json.loads(Path("mine/train.json").read_text()))
    assert ledger["planned"] == ledger["trained"] == num_records, "each record once"
    assert {"val/emotion/war", "val/emotion/uar"} <= set(ledger["last"])
    call("evaluate", "run=finetune", "benchmark=records", "benchmark.path=mine/test.json", "num_workers=0", "cards=0")
    (folder,) = run.glob("evaluation/records/*/")
    scores = json.loads((folder / "metrics.json").read_text())
    assert "war" in json.dumps(scores)
    labels = OmegaConf.load(folder / "config.yaml").benchmark.labels
    assert set(labels) <= set(LABELS.values()) and "dégoût" in labels


@pytest.mark.slow
def test_from_a_table_to_a_table(clips: Path, model_folder: Callable[[str], Path]) -> None:
    make_records()
    OmegaConf.save(OmegaConf.create(SWEEP), "mine/sweep.yaml")
    training = [f"base={model_folder('humanomni_stage1')}", "data=mine/", *TINY[:-1], "recipe.max_epochs=1"]
    call("study", "mine/sweep.yaml", "threads=1", "--", *training)
    folders = {path.name for path in Path("runs/nano/finetune").iterdir() if path.is_dir()}
    assert len(folders) == 6 and {"mine.gate,seed=1", "mine.sum,seed=3"} <= folders
    latex = call("report", "study=mine", "format=latex")
    assert r"\toprule" in latex and r"\label{tab:mine}" in latex and r"\pm" in latex
    (claim,) = json.loads(Path("runs/nano/studies/mine/claims.json").read_text())
    assert claim["verdict"] in ("shown", "not shown", "contradicted")
