"""Whole runs with and without cached features of frozen encoders."""

import csv
import json
import logging
from pathlib import Path

import pytest
from safetensors import safe_open

from omnihuman.build import compose_config
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage
from tests.programs import launch_two_ranks

STEPS = 3
SPEED_COLUMNS = (
    "train/tokens_per_second",
    "train/samples_per_second",
    "train/clips_per_second",
    "train/data_wait",
    "train/tflops",
)


def build_overrides(corpus: Path, runs: Path, experiment: str, *more: str) -> list[str]:
    return [
        f"+experiment={experiment}",
        "data=json",
        f"data.records={write_some_records(corpus)}",
        f"data.root={corpus}",
        f"data.val_records={corpus}/val.json",
        "data.val_limit=4",
        "validation.limit=1",
        "init_from=[]",
        "frames=4",
        f"runs={runs}",
        # small steps: Adam's large first steps amplify rounding, which differs between sizes of a batch
        "recipe.lr=1e-5",
        "recipe.projector_lr=1e-5",
        f"trainer.max_steps={STEPS}",
        "recipe.batch_size=4",
        "data.num_workers=0",
        *more,
    ]


def write_some_records(corpus: Path) -> Path:
    """Write every sixth record, enough for every kind."""
    records = json.loads((corpus / "train.json").read_text())
    file = corpus / "some_records.json"
    file.write_text(json.dumps(records[::6]))
    return file


def train(corpus: Path, runs: Path, experiment: str, *more: str) -> Run:
    overrides = build_overrides(corpus, runs, experiment, *more)
    return run_stage(compose_config(overrides), overrides)


def read_columns(run: Run) -> dict[str, list[float]]:
    """Return all metrics but the speed."""
    with (run.folder / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = {}
    for name in rows[0]:
        if name not in SPEED_COLUMNS:
            columns[name] = [float(row[name]) for row in rows if row[name]]
    return columns


def list_entries(runs: Path) -> list[Path]:
    return sorted((runs / "features").glob("??/*"))


def modification_times(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in list_entries(runs)}


def has_levels(path: Path) -> bool:
    with safe_open(path, "pt") as entry:
        return "tokens.1" in entry.keys()  # noqa: SIM118


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param("humanomni_stage1", marks=pytest.mark.slow),
        pytest.param("omni_emotion_stage3", marks=pytest.mark.slow),
        "favchat_stage3",
    ],
)
def test_cached_features_do_not_change_a_run(corpus: Path, tmp_path: Path, experiment: str) -> None:
    without = train(corpus, tmp_path, experiment, "data.features=null", "variant=without")
    assert not list_entries(tmp_path)
    cold = train(corpus, tmp_path, experiment, "variant=cold")
    entries = modification_times(tmp_path)
    warm = train(corpus, tmp_path, experiment, "variant=warm")
    assert entries and entries == modification_times(tmp_path)
    assert read_columns(warm) == read_columns(cold)
    expected, columns = read_columns(without), read_columns(cold)
    assert expected.keys() == columns.keys() and len(expected["train/loss"]) == STEPS
    assert columns["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-6)
    for name, values in expected.items():
        assert columns[name] == pytest.approx(values, abs=1e-5), name
    assert without.digest == cold.digest
    assert any(map(has_levels, entries)) == (experiment == "favchat_stage3")


def test_features_of_a_trainable_encoder_are_not_cached(corpus: Path, tmp_path: Path) -> None:
    more = ("recipe.encoder_lr=1e-5", "validate_first=false", "trainer.limit_val_batches=0", "trainer.max_steps=1")
    train(corpus, tmp_path, "favchat_stage2", *more)
    assert not list_entries(tmp_path)


@pytest.mark.slow
def test_broken_cache_entries_are_replaced(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = train(corpus, tmp_path, "humanomni_stage1", "variant=first")
    for path in list_entries(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    logger = logging.getLogger("omnihuman.data.features")
    logger.addHandler(caplog.handler)  # a run replaces the handlers of the root logger
    with caplog.at_level(logging.WARNING):
        second = train(corpus, tmp_path, "humanomni_stage1", "variant=second")
    logger.removeHandler(caplog.handler)
    assert "is broken" in caplog.text and read_columns(second) == read_columns(first)


@pytest.mark.slow
def test_two_ranks_fill_the_cache_together(corpus: Path, tmp_path: Path) -> None:
    """Micro-batches with and without audio are on different ranks, and neither rank waits forever."""
    more = ("validation.views=[]", "trainer.limit_val_batches=0", "validate_first=false")
    one = train(corpus, tmp_path / "one", "omni_emotion_stage3", *more, "variant=one")
    overrides = build_overrides(corpus, tmp_path / "two", "omni_emotion_stage3", *more, "variant=two")
    overrides += ["trainer=ddp"]
    process = launch_two_ranks(*overrides)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    two = Run(tmp_path / "two/nano/omni_emotion_stage3/two", "")
    assert read_columns(two)["train/loss"] == pytest.approx(read_columns(one)["train/loss"], abs=1e-5)
    assert len(list_entries(tmp_path / "two")) == len(list_entries(tmp_path / "one")) > 0
