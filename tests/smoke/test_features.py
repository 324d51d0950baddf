"""Whole runs with and without the features of frozen encoders on disk."""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from omnihuman.build import compose_config
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage

STEPS = 3


def overrides(corpus: Path, runs: Path, experiment: str, *more: str) -> list[str]:
    return [
        f"+experiment={experiment}", "data=jsonl", f"data.records={few(corpus)}", f"data.root={corpus}",
        f"data.val_records={corpus}/val.json", "data.val_limit=8", "answers.limit=2", "init_from=[]", f"runs={runs}",
        # slowly: large steps of Adam make much of how a product was rounded in a larger batch
        "stage.lr=1e-5", "stage.projector_lr=1e-5", f"trainer.max_steps={STEPS}", "stage.batch_size=4",
        "data.num_workers=0", *more,
    ]  # fmt: skip


def few(corpus: Path) -> Path:
    """Enough records of every kind."""
    records = json.loads((corpus / "train.json").read_text())
    (corpus / "few.json").write_text(json.dumps(records[::4]))
    return corpus / "few.json"


def train(corpus: Path, runs: Path, experiment: str, *more: str) -> Run:
    given = overrides(corpus, runs, experiment, *more)
    return run_stage(compose_config(given), given)


def columns(run: Run) -> dict[str, list[float]]:
    """Everything measured but speed."""
    with (run.folder / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    speed = ("train/tokens_per_second", "train/samples_per_second", "train/data_wait")
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0] if name not in speed}


def entries(runs: Path) -> list[Path]:
    return sorted((runs / "features").glob("??/*"))


@pytest.mark.parametrize("experiment", ["humanomni_stage1", "omni_emotion_stage3", "favchat_stage3"])
def test_a_run_from_the_store_learns_the_same(corpus: Path, tmp_path: Path, experiment: str) -> None:
    without = train(corpus, tmp_path, experiment, "data.features=null", "variant=without")
    assert not entries(tmp_path)
    cold = train(corpus, tmp_path, experiment, "variant=cold")
    made = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    warm = train(corpus, tmp_path, experiment, "variant=warm")
    assert made and made == {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    assert columns(warm) == columns(cold)
    want, have = columns(without), columns(cold)
    assert want.keys() == have.keys() and len(want["train/loss"]) == STEPS
    assert have["train/loss"] == pytest.approx(want["train/loss"], rel=1e-6)
    for name in want:
        assert have[name] == pytest.approx(want[name], abs=1e-5), name
    assert without.digest == cold.digest, "it is the same run"
    assert any(map(has_levels, made)) == (experiment == "favchat_stage3")


def has_levels(path: Path) -> bool:
    with safe_open(path, "pt") as entry:
        return "tokens.1" in entry.keys()  # noqa: SIM118


def test_an_encoder_that_learns_is_not_kept(corpus: Path, tmp_path: Path) -> None:
    train(
        corpus,
        tmp_path,
        "favchat_stage2",
        "stage.encoder_lr=1e-5",
        "validate_first=false",
        "trainer.limit_val_batches=0",
    )
    assert not entries(tmp_path)


def test_a_run_goes_on_over_files_that_broke(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = train(corpus, tmp_path, "humanomni_stage1", "variant=first")
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    logging.getLogger("omnihuman.data.features").addHandler(caplog.handler)  # a run has handlers of its own
    with caplog.at_level(logging.WARNING):
        second = train(corpus, tmp_path, "humanomni_stage1", "variant=second")
    logging.getLogger("omnihuman.data.features").removeHandler(caplog.handler)
    assert "is broken" in caplog.text and columns(second) == columns(first)


def test_two_ranks_fill_the_store_together(corpus: Path, tmp_path: Path) -> None:
    """Rows with and without sound on different ranks; neither waits for the other for ever."""
    more = ("answers.modals=[]", "trainer.limit_val_batches=0", "validate_first=false")
    one = train(corpus, tmp_path / "one", "omni_emotion_stage3", *more, "variant=one")
    given = overrides(corpus, tmp_path / "two", "omni_emotion_stage3", *more, "variant=two")
    given += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = subprocess.run(
        [sys.executable, "-m", "omnihuman.train", *given], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    two = Run(tmp_path / "two/nano/omni_emotion_stage3/two", "")
    assert columns(two)["train/loss"] == pytest.approx(columns(one)["train/loss"], abs=1e-5)
    assert len(entries(tmp_path / "two")) == len(entries(tmp_path / "one")) > 0
