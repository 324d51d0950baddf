"""A study's table and claims, from predictions with known scores."""

import csv
import json
import math
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
            "folder": None,
            "title": "Toy",
            "runs": str(folder),
            "size": "nano",
            "cells": {name: {"label": name.upper()} for name in CELLS},
            "baseline": None,
            "seeds": [1],
            "parent_seeds": "shared",
            "evaluations": {"emotion": ["benchmark=sample"]},
            "scores": {"emotion/war": "emotion WAR"},
            "paper": {"columns": ["DFEW WAR"], "rows": {"good": [77.88]}, "source": "Table 6", "note": "one fold"},
            "claims": CLAIMS,
            "halving": None,
            "grid": {},
        }
    )


def finish(config: DictConfig, cell: str, correct: Sequence[bool], seed: int = 1) -> None:
    """Write a finished cell with a prediction per question, correct or not."""
    folder = Path(config.runs, f"{cell}-{seed}")
    folder.mkdir(parents=True)
    benchmark = {"_target_": "omnihuman.benchmark.sample.Sample"}
    OmegaConf.save(OmegaConf.create({"benchmark": benchmark, "run": cell, "view": "V"}), folder / "config.yaml")
    with (folder / "predictions.jsonl").open("w") as lines:
        for number, is_correct in enumerate(correct):
            reference = EMOTIONS[number % 2]
            answer = EMOTIONS[(number + (not is_correct)) % 2]
            prediction = Prediction("sample", f"q{number}", "face", "?", reference, answer, view="V")
            lines.write(f"{prediction.to_json()}\n")
    outcome = Outcome(
        f"{cell},seed={seed}", "finished", run=str(folder), evaluations={"emotion": str(folder)}, order_digest="same"
    )
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
    write_outcome(
        folder, Outcome("crashed,seed=1", "failed", error="killed by signal 9: out of memory\ncommand: python ...")
    )
    write_outcome(folder, Outcome("killed,seed=1", "running"))
    write_outcome(folder, Outcome("dropped,seed=1", "halved"))
    return config


@pytest.fixture
def seeded(toy: DictConfig) -> DictConfig:
    """Return the study with three seeds: `good` and `poor` differ with each, `same` differs from `good` by the seed."""
    toy.seeds = [1, 2, 3]
    for seed, (good, same) in {2: (85, 70), 3: (80, 95)}.items():
        finish(toy, "good", [True] * good + [False] * (100 - good), seed)
        finish(toy, "poor", [True] * (good - 30) + [False] * (130 - good), seed)
        finish(toy, "same", [True] * same + [False] * (100 - same), seed)
    return toy


def test_one_seed_gives_no_verdict(toy: DictConfig) -> None:
    claims = check_claims(toy, read_results(toy))
    assert [claim.verdict for claim in claims] == ["one seed: a run, no verdict"] * 3 + ["not run"]
    difference = claims[0].difference
    assert difference is not None and difference.value == pytest.approx(30.0) and difference.n == 100
    assert all(math.isnan(claim.p) for claim in claims)


def test_two_seeds_give_no_verdict(seeded: DictConfig) -> None:
    seeded.seeds = [1, 2]
    claims = check_claims(seeded, read_results(seeded))
    assert {claim.verdict for claim in claims} == {"2 seeds: runs, no verdict", "not run"}


def test_verdicts_follow_from_three_seeds(seeded: DictConfig) -> None:
    claims = {claim.text: claim for claim in check_claims(seeded, read_results(seeded))}
    assert {text: claim.verdict for text, claim in claims.items()} == {
        "good beats poor": "shown",
        "poor beats good": "contradicted",
        "same beats good": "not shown",
        "crashed beats good": "not run",
    }
    difference = claims["good beats poor"].difference
    assert difference is not None and difference.values == pytest.approx((30, 30, 30)) and difference.num_seeds == 3
    raw, corrected = [], []
    for claim in claims.values():
        if claim.difference is not None:
            raw.append(claim.difference.p)
            corrected.append(claim.p)
    assert len(raw) == 3 and corrected == pytest.approx(holm(raw))


def test_the_table_has_means_and_deviations_over_seeds(seeded: DictConfig) -> None:
    report_study(seeded)
    folder = locate_results(seeded)
    table = (folder / "table.md").read_text()
    assert "**85.0 ± 5.0** [" in table and "| 55.0 ± 5.0 [" in table
    assert "training seeds 1, 2, 3" in table and "hierarchical bootstrap" in table and "same parents" in table
    assert "minus GOOD: -30.0 [" in table and "(seeds -30.0, -30.0, -30.0)" in table
    assert "CRASHED, seed 1: **failed**" in table and "CRASHED, seed 2: not run yet" in table
    with (folder / "table.csv").open() as lines:
        row = next(csv.DictReader(lines))
    assert (float(row["emotion WAR"]), float(row["emotion WAR sd"])) == (85, 5)
    write_claims([seeded], folder / "RESULTS.md")
    text = (folder / "RESULTS.md").read_text()
    assert "| 3: +30.0, +30.0, +30.0 |" in text and "**shown**" in text and "**contradicted**" in text


def test_a_cell_without_some_seeds_is_unfinished(seeded: DictConfig) -> None:
    (locate_results(seeded) / "poor,seed=2.json").unlink()
    report_study(seeded)
    table = (locate_results(seeded) / "table.md").read_text()
    poor = report_study(seeded)["poor"]
    assert not poor.is_complete() and not poor.is_complete([2]) and poor.is_complete([1, 3])
    assert "POOR, seed 2: not run yet" in table and "| 2 of 3 seeds |" in table
    assert check_claims(seeded, read_results(seeded))[0].verdict == "2 seeds: runs, no verdict"


@pytest.mark.parametrize("output_format", ["markdown", "latex", "csv"])
def test_the_table_is_printed_in_a_format(
    seeded: DictConfig, capsys: pytest.CaptureFixture[str], output_format: str
) -> None:
    report_study(seeded, output_format=output_format)
    output, folder = capsys.readouterr().out, locate_results(seeded)
    suffix = {"markdown": "md", "latex": "tex"}.get(output_format, output_format)
    assert output == (folder / f"table.{suffix}").read_text()
    if output_format == "latex":
        assert output.startswith("\\begin{table}[t]\n\\centering\n\\caption{Toy. Mean $\\pm$ standard deviation")
        assert "\\label{tab:toy}" in output and "\\toprule" in output and output.endswith("\\end{table}\n")
        assert "\\textbf{85.0 $\\pm$ 5.0}" in output and "minutes" not in output


def test_the_table_describes_every_cell_and_claim(toy: DictConfig) -> None:
    assert not report_study(toy)["crashed"].is_complete()
    table = (locate_results(toy) / "table.md").read_text()
    for text in (
        "| GOOD | **90.0** [",
        "| 77.88 |",
        "CRASHED: **failed** – killed by signal 9: out of memory",
        "KILLED: **killed",
        "DROPPED: dropped by successive halving",
        "PENDING: not run yet",
        "“good beats poor” (emotion WAR): **one seed: a run, no verdict**: +30.0",
        "emotion WAR, POOR minus GOOD: -30.0 [",
        "One seed: a run, no verdict.",
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


def test_the_charts_have_text_as_text(toy: DictConfig) -> None:
    report_study(toy)
    folder = locate_results(toy)
    with Image.open(folder / "chart.png") as chart:
        assert chart.size[0] > 300
    assert ">emotion WAR</text>" in (folder / "chart.svg").read_text()
    assert b"/FontFile2" in (folder / "chart.pdf").read_bytes()  # TrueType, as type 42
    first = {file.name: file.read_bytes() for file in folder.glob("chart.*")}
    report_study(toy)
    assert {file.name: file.read_bytes() for file in folder.glob("chart.*")} == first


def test_a_table_is_published_beside_its_study(toy: DictConfig, tmp_path: Path) -> None:
    toy.folder = str(tmp_path)
    report_study(toy, publish=True)
    assert (tmp_path / "TABLE.md").read_text().endswith("![chart](chart.png)\n")
    assert (tmp_path / "chart.png").read_bytes() == (locate_results(toy) / "chart.png").read_bytes()


def test_claims_of_all_studies_are_in_one_file(toy: DictConfig, tmp_path: Path) -> None:
    write_claims([toy, toy], tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("good beats poor") == 2 and text.count("**not run**") == 2 and "+30.0 [" in text
    assert "Unfinished cells: toy: CRASHED; toy: KILLED; toy: PENDING" in text and "DROPPED" not in text


@pytest.fixture
def judged(tmp_path: Path) -> DictConfig:
    """Return a study with answers that a judge groups with their references."""
    config = build_config(tmp_path)
    labels = [["furious", "angry"], ["down", "sad"]]
    config.cells = {"good": {"label": "GOOD"}, "blind": {"skip": ["open"]}}
    config.evaluations = {"open": [["judge=replay", f"judge.file={tmp_path}/replies.jsonl"], "benchmark=emer_ov"]}
    config.scores = {"open/ov_avg": "OV Avg", "open/ov_recall": "OV Recall"}
    paper = {"columns": ["Clue", "OV Avg"], "scores": ["clue/x", "open/ov_avg"], "rows": {"good": [None, 65.9]}}
    config.paper = {**paper, "note": None}
    config.claims = []
    folder = tmp_path / "good"
    folder.mkdir()
    benchmark = {"_target_": "omnihuman.benchmark.emer_ov.EmerOV", "root": "."}
    OmegaConf.save(OmegaConf.create({"benchmark": benchmark, "run": "good", "view": "V"}), folder / "config.yaml")
    predictions, replies = [], []
    for number, (answer, reference) in enumerate(labels):
        predictions.append(Prediction("emer_ov", f"q{number}", "", "?", [reference], answer, view="V").to_json())
        item = {"labels": sorted([answer, reference])}
        reply = {"groups": [[answer, reference]]}
        replies.append(json.dumps({"protocol": "emer_ov_groups", "item": item, "reply": reply}))
    (folder / "predictions.jsonl").write_text("\n".join([*predictions, ""]))
    (tmp_path / "replies.jsonl").write_text("\n".join(replies))
    locate_results(config).mkdir(parents=True)
    for cell, evaluations in {"good": {"open": str(folder)}, "blind": {}}.items():
        outcome = Outcome(f"{cell},seed=1", "finished", run=str(folder), evaluations=evaluations)
        write_outcome(locate_results(config), outcome)
    return config


def test_the_papers_column_stands_beside_ours_of_the_same_benchmark(judged: DictConfig) -> None:
    assert report_study(judged)
    lines = (locate_results(judged) / "table.md").read_text().splitlines()
    assert lines[2].startswith("| cell | OV Avg | OV Avg (paper) | OV Recall | Clue (paper) | minutes |")
    assert lines[4].startswith("| GOOD | 100.0") and [cell.strip() for cell in lines[4].split("|")][3] == "65.90"
    assert lines[5].startswith("| blind | – | – | – | – |")
    assert "OV Avg, OV Recall: judge offline-replay." in lines


def test_a_score_that_the_judge_does_not_cover_is_not_printed(judged: DictConfig, tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text(file.read_text().replace('{"groups": [["down", "sad"]]}', "null"))
    report_study(judged)
    assert "| GOOD | – (50 % judged) | 65.90 |" in (locate_results(judged) / "table.md").read_text()


def test_an_unknown_score_raises(toy: DictConfig) -> None:
    toy.scores = {"emotion/wra": "WAR"}
    with pytest.raises(ValueError, match=r"unknown keys \['emotion/wra'\]; .*\[.*'emotion/war'"):
        read_results(toy)
