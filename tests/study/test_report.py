"""A study's table and claims from predictions of a known outcome."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from omnihuman.benchmark.base import Prediction
from omnihuman.metric.statistics import holm
from omnihuman.study.cell import Outcome
from omnihuman.study.report import claims_of, read_cells, report_study, write_results

EMOTIONS = ("happy", "sad")
SAMPLE = {"_target_": "omnihuman.benchmark.sample.Sample"}


def study(folder: Path) -> DictConfig:
    cells = {name: {"label": name.upper()} for name in ("good", "poor", "same", "dead", "killed", "left", "never")}
    claims = [
        {"text": "good beats poor", "better": "good", "worse": "poor", "score": "emotion/war"},
        {"text": "poor beats good", "better": "poor", "worse": "good", "score": "emotion/war"},
        {"text": "same beats good", "better": "same", "worse": "good", "score": "emotion/war"},
        {"text": "the dead speak", "better": "dead", "worse": "good", "score": "emotion/war"},
    ]
    paper = {"columns": ["DFEW WAR"], "rows": {"good": [77.88]}, "source": "Table 6", "note": "one fold"}
    return OmegaConf.create(
        {
            "study": "toy", "title": "Toy", "runs": str(folder), "size": "nano", "cells": cells, "reference": "good",
            "scores": {"emotion/war": "emotion WAR"}, "paper": paper, "claims": claims, "halving": None, "grid": {},
        }
    )  # fmt: skip


def finish(folder: Path, cell: str, right: Sequence[bool]) -> None:
    """A finished cell that was right where ``right`` says so."""
    where = folder / cell
    where.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"benchmark": SAMPLE, "run": cell, "modality": "V"}), where / "config.yaml")
    lines = [
        Prediction("sample", f"q{n}", "face", "?", EMOTIONS[n % 2], EMOTIONS[n % 2 if ok else 1 - n % 2], modality="V")
        for n, ok in enumerate(right)
    ]
    (where / "predictions.jsonl").write_text("".join(f"{line.line()}\n" for line in lines))
    outcome = Outcome(cell, "finished", run=str(where), evaluations={"emotion": str(where)}, seconds=(60.0, 180.0),
                      flops=2e15, trained=1_500_000, order="same")  # fmt: skip
    write(folder, outcome)


def write(folder: Path, outcome: Outcome) -> None:
    studies = folder / "nano" / "studies" / "toy"
    studies.mkdir(parents=True, exist_ok=True)
    (studies / f"{outcome.cell}.json").write_text(json.dumps(asdict(outcome)))


@pytest.fixture
def toy(tmp_path: Path) -> DictConfig:
    finish(tmp_path, "good", [True] * 90 + [False] * 10)
    finish(tmp_path, "poor", [True] * 60 + [False] * 40)
    finish(tmp_path, "same", [False] + [True] * 90 + [False] * 9)
    write(tmp_path, Outcome("dead", "failed", error="killed by signal 9: out of memory\nof: python ..."))
    write(tmp_path, Outcome("killed", "running"))
    write(tmp_path, Outcome("left", "halved"))
    return study(tmp_path)


def test_claims_are_what_the_paired_tests_say(toy: DictConfig) -> None:
    found = {claim.text: claim for claim in claims_of(toy, read_cells(toy))}
    assert {text: claim.verdict for text, claim in found.items()} == {
        "good beats poor": "shown", "poor beats good": "contradicted", "same beats good": "not shown",
        "the dead speak": "not run",
    }  # fmt: skip
    shown = found["good beats poor"].comparison
    assert shown is not None and shown.delta == pytest.approx(30.0) and shown.n == 100
    raw = [claim.comparison.p for claim in found.values() if claim.comparison is not None]
    assert [claim.p for claim in found.values() if claim.comparison is not None] == pytest.approx(holm(raw))


def test_the_table_has_every_cell_also_those_that_failed(toy: DictConfig, tmp_path: Path) -> None:
    assert not report_study(toy)
    folder = tmp_path / "nano" / "studies" / "toy"
    text = (folder / "table.md").read_text()
    said = (
        "GOOD", "90.0 [", "77.88", "killed by signal 9: out of memory", "KILLED: **killed", "LEFT: left behind",
        "NEVER: not run yet", "“good beats poor” (emotion WAR): **shown**", "one fold",
    )  # fmt: skip
    for words in said:
        assert words in text, words
    rows = list(csv.reader((folder / "table.csv").open()))
    assert [row[0] for row in rows[1:]] == ["GOOD", "POOR", "SAME", "DEAD", "KILLED", "LEFT", "NEVER"]
    good = dict(zip(rows[0], rows[1], strict=True))
    assert float(good["emotion WAR"]) == 90 and float(good["minutes"]) == 1 and float(good["with parents"]) == 3
    assert float(good["PFLOPs"]) == 2 and float(good["million trained"]) == 1.5
    assert Image.open(folder / "chart.png").size[0] > 300
    assert r"\begin{tabular}" in (folder / "table.tex").read_text()


def test_claims_of_all_studies_stand_in_one_file(toy: DictConfig, tmp_path: Path) -> None:
    write_results([toy, toy], tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("good beats poor") == 2 and text.count("**not run**") == 2 and "+30.0 [" in text
    assert "not finished: toy: DEAD; toy: KILLED; toy: NEVER" in text and "LEFT" not in text


def test_wrong_names_are_said(toy: DictConfig) -> None:
    toy.claims[0].worse = "pour"
    with pytest.raises(ValueError, match=r"names cells \['pour'\]; it has good, poor"):
        claims_of(toy, read_cells(toy))
    toy.scores = {"emotion/wra": "WAR"}
    with pytest.raises(ValueError, match="its evaluations give"):
        read_cells(toy)
