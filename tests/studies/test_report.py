"""A study's table and claims, from predictions with known scores."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from omnihuman.benchmark.base import Prediction
from omnihuman.metric.statistics import holm
from omnihuman.studies.claims import check_claims
from omnihuman.studies.outcome import Outcome, locate_results, write_outcome
from omnihuman.studies.report import report_study, write_claims
from omnihuman.studies.results import read_results

EMOTIONS = ("happy", "sad")
CELLS = ("good", "poor", "same", "crashed", "killed", "dropped", "pending")
CLAIMS = [
    {"text": "good beats poor", "better": "good", "worse": "poor", "score": "emotion/war"},
    {"text": "poor beats good", "better": "poor", "worse": "good", "score": "emotion/war"},
    {"text": "same beats good", "better": "same", "worse": "good", "score": "emotion/war"},
    {"text": "crashed beats good", "better": "crashed", "worse": "good", "score": "emotion/war"},
]


def build_config(folder: Path) -> DictConfig:
    return OmegaConf.create(
        {
            "study": "toy",
            "title": "Toy",
            "runs": str(folder),
            "size": "nano",
            "cells": {name: {"label": name.upper()} for name in CELLS},
            "baseline": "good",
            "scores": {"emotion/war": "emotion WAR"},
            "paper": {"columns": ["DFEW WAR"], "rows": {"good": [77.88]}, "source": "Table 6", "note": "one fold"},
            "claims": CLAIMS,
            "halving": None,
            "grid": {},
        }
    )


def finish(config: DictConfig, cell: str, correct: Sequence[bool]) -> None:
    """Write a finished cell with a prediction per question, correct or not."""
    folder = Path(config.runs, cell)
    folder.mkdir(parents=True)
    benchmark = {"_target_": "omnihuman.benchmark.sample.Sample"}
    OmegaConf.save(OmegaConf.create({"benchmark": benchmark, "run": cell, "view": "V"}), folder / "config.yaml")
    with (folder / "predictions.jsonl").open("w") as lines:
        for number, is_correct in enumerate(correct):
            reference = EMOTIONS[number % 2]
            answer = EMOTIONS[(number + (not is_correct)) % 2]
            prediction = Prediction("sample", f"q{number}", "face", "?", reference, answer, view="V")
            lines.write(f"{prediction.to_json()}\n")
    outcome = Outcome(cell, "finished", run=str(folder), evaluations={"emotion": str(folder)}, order_digest="same")
    outcome.seconds, outcome.flops, outcome.num_trainable = (60.0, 180.0), 2e15, 1_500_000
    write_outcome(locate_results(config), outcome)


@pytest.fixture
def toy(tmp_path: Path) -> DictConfig:
    config = build_config(tmp_path)
    folder = locate_results(config)
    folder.mkdir(parents=True)
    finish(config, "good", [True] * 90 + [False] * 10)
    finish(config, "poor", [True] * 60 + [False] * 40)
    finish(config, "same", [False] + [True] * 90 + [False] * 9)
    write_outcome(folder, Outcome("crashed", "failed", error="killed by signal 9: out of memory\ncommand: python ..."))
    write_outcome(folder, Outcome("killed", "running"))
    write_outcome(folder, Outcome("dropped", "halved"))
    return config


def test_verdicts_follow_from_paired_tests(toy: DictConfig) -> None:
    claims = {claim.text: claim for claim in check_claims(toy, read_results(toy))}
    assert {text: claim.verdict for text, claim in claims.items()} == {
        "good beats poor": "shown",
        "poor beats good": "contradicted",
        "same beats good": "not shown",
        "crashed beats good": "not run",
    }
    comparison = claims["good beats poor"].comparison
    assert comparison is not None and comparison.delta == pytest.approx(30.0) and comparison.n == 100


def test_p_values_are_corrected_over_the_claims(toy: DictConfig) -> None:
    raw, corrected = [], []
    for claim in check_claims(toy, read_results(toy)):
        if claim.comparison is not None:
            raw.append(claim.comparison.p)
            corrected.append(claim.p)
    assert len(raw) == 3 and corrected == pytest.approx(holm(raw))


def test_the_table_describes_every_cell_and_claim(toy: DictConfig) -> None:
    assert not report_study(toy)
    table = (locate_results(toy) / "table.md").read_text()
    for text in (
        "| GOOD | 90.0 [",
        "| 77.88 |",
        "CRASHED: **failed** – killed by signal 9: out of memory",
        "KILLED: **killed",
        "DROPPED: dropped by successive halving",
        "PENDING: not run yet",
        "“good beats poor” (emotion WAR): **shown**",
        "emotion WAR, POOR minus GOOD: -30.00",
        "The paper's numbers (Table 6): one fold.",
    ):
        assert text in table


def test_the_csv_has_a_row_per_cell_with_its_costs(toy: DictConfig) -> None:
    report_study(toy)
    with (locate_results(toy) / "table.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["cell"] for row in rows] == ["GOOD", "POOR", "SAME", "CRASHED", "KILLED", "DROPPED", "PENDING"]
    columns = ("emotion WAR", "minutes", "minutes with parents", "PFLOPs", "trainable parameters (M)")
    assert [float(rows[0][column]) for column in columns] == [90, 1, 3, 2, 1.5]


def test_the_chart_and_the_latex_table_are_written(toy: DictConfig) -> None:
    report_study(toy)
    folder = locate_results(toy)
    with Image.open(folder / "chart.png") as chart:
        assert chart.size[0] > 300
    assert r"\begin{tabular}" in (folder / "table.tex").read_text()


def test_claims_of_all_studies_are_in_one_file(toy: DictConfig, tmp_path: Path) -> None:
    write_claims([toy, toy], tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("good beats poor") == 2 and text.count("**not run**") == 2 and "+30.0 [" in text
    assert "Unfinished cells: toy: CRASHED; toy: KILLED; toy: PENDING" in text and "DROPPED" not in text


def test_an_unknown_cell_of_a_claim_raises(toy: DictConfig) -> None:
    toy.claims[0].worse = "pour"
    with pytest.raises(ValueError, match=r"unknown cells \['pour'\]; .*\bgood, poor"):
        check_claims(toy, read_results(toy))


def test_an_unknown_score_raises(toy: DictConfig) -> None:
    toy.scores = {"emotion/wra": "WAR"}
    with pytest.raises(ValueError, match=r"unknown keys \['emotion/wra'\]; .*\[.*'emotion/war'"):
        read_results(toy)
