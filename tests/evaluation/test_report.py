import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.build import compose_config
from omnihuman.evaluation.folder import find
from omnihuman.evaluation.report import _spread, report_folder, report_run
from omnihuman.judge.base import Ledger
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import interval

Make = Callable[..., Path]


def test_figures_by_hand(make: Make) -> None:
    folder = make()
    report = report_folder(folder, resamples=200)
    assert report == json.loads((folder / "metrics.json").read_text())
    war, uar = report["scores"]["war"], report["scores"]["uar"]
    assert war["value"] == 68.75 and uar["value"] == pytest.approx(100 * (5 / 6 + 2 / 4 + 4 / 6) / 3, abs=1e-6)
    ends = interval(Score.mean("war", [str(n) for n in range(16)], [1.0] * 11 + [0.0] * 5), 0.95, 200, 0)
    assert (war["low"], war["high"]) == pytest.approx(ends, abs=7) and war["low"] < 68.75 < war["high"]
    assert (report["n"], report["n_invalid"], report["n_missing_media"], report["n_missing_audio"]) == (16, 1, 1, 1)
    assert report["support"] == {"sad": 6, "happy": 4, "neutral": 6}
    assert report["floors"] == [{"method": "always “sad”", "scores": {"war": 37.5, "uar": 33.333333}}]
    assert report["rules"] == {"label": 14, "invalid": 1, "not asked": 1}
    assert report["protocol"] == {"folds": "2", "missing media": "1 of 17 skipped"}
    assert report["seconds_per_sample"] == 0.5 and report["groups"] == {"fold 1": 8, "fold 2": 8}


def test_parsed_answers_are_written_back_and_predictions_left_alone(make: Make) -> None:
    folder = make()
    before = (folder / "predictions.jsonl").read_bytes()
    report_folder(folder, resamples=50)
    assert (folder / "predictions.jsonl").read_bytes() == before
    lines = [json.loads(line) for line in (folder / "parsed.jsonl").read_text().splitlines()]
    assert [line["right"] for line in lines].count(True) == 11
    assert lines[6] == {"id": "00006", "group": "fold 1", "truth": "happy", "answer": "<script>alert(1)</script>",
                        "parsed": None, "rule": "invalid", "right": False}  # fmt: skip


def test_the_same_predictions_give_the_same_bytes_elsewhere(make: Make, tmp_path: Path) -> None:
    folder = make(media=2)
    report_folder(folder, resamples=50)
    made = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(made) >= {"metrics.json", "table.md", "table.tex", "table.csv", "per_class.csv", "index.html",
                         "confusion_fold_1.csv", "confusion_fold_2.png", "confusion_pooled.png"}  # fmt: skip
    copy = tmp_path / "elsewhere/deep"
    copy.mkdir(parents=True)
    for name in ("predictions.jsonl", "config.yaml", "dataset_manifest.json"):
        shutil.copy(folder / name, copy / name)
    shutil.copytree(folder / "media", copy / "media")
    report_folder(copy, resamples=50)
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == made
    (copy / "confusion_fold_9.png").write_bytes(b"of an older report")
    report_folder(copy, resamples=50)
    assert not (copy / "confusion_fold_9.png").exists()


def test_what_is_not_finished_says_so(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(finished=False)
    assert report_folder(folder, resamples=50)["unfinished"] == "unfinished: 16 asked"
    assert "unfinished: 16 asked" in caplog.text
    assert "n = 16, unfinished: 16 asked" in (folder / "table.md").read_text()
    assert "unfinished: 16 asked" in (folder / "index.html").read_text()


class Marker:
    """Marks every text 4, but fails on the first few."""

    id, offline = "gpt-x, seed 0", False

    def __init__(self, fails: int) -> None:
        self.fails, self.ledger = fails, Ledger(asked=50, judged=50 - fails)

    def __call__(self, name: str) -> float | None:
        return None if int(name) < self.fails else 4.0


def told(make: Make) -> Path:
    return make(predictions=[Prediction("told", f"{n}", "", "What?", "a man", "a") for n in range(50)], kind="Told")


def test_a_judge_is_named_and_its_coverage_counts(make: Make) -> None:
    folder = told(make)
    assert report_folder(folder, resamples=50)["judge"] is None
    for fails, printed in ((1, "4.00"), (2, "– (96 % judged)")):
        report = report_folder(folder, Marker(fails), resamples=50)
        assert report["scores"]["mark"]["coverage"] == 1 - fails / 50 and report["scores"]["mark"]["n"] == 50 - fails
        text = (folder / "table.md").read_text()
        assert "mark (gpt-x, seed 0)" in text and printed in text
        assert json.loads((folder / "judge.json").read_text())["judged"] == 50 - fails
    report_folder(folder, Marker(2), force=True, resamples=50)
    assert "judged)" not in (folder / "table.md").read_text()


def test_a_run_with_several_modalities(make: Make, tmp_path: Path, sixteen: list[Prediction]) -> None:
    make()
    make("runs/nano/net/evaluation/toy/V", predictions=[replace(one, answer="sad") for one in sixteen], modality="V")
    told = [Prediction("told", f"{n}", "", "What?", "a man", "aa") for n in range(4)]
    make("runs/nano/net/evaluation/told/VA", predictions=told, kind="Told")
    run = tmp_path / "runs/nano/net"
    said = report_run(run, find(run), baseline=run / "evaluation/toy/V", resamples=50)
    assert "disagrees with net, V" in (run / "evaluation/toy/VA/index.html").read_text()
    assert "disagrees with" not in (run / "evaluation/told/VA/index.html").read_text()
    with pytest.raises(ValueError, match=r"answers told, which .* was not asked"):
        report_run(run, find(run, "toy"), baseline=run / "evaluation/told/VA")
    table = (run / "evaluation/toy/table.md").read_text()
    assert table in said and "Old & Wise" in table
    ours = [line for line in table.splitlines() if line.startswith("| net |")]
    assert [line.split("|")[2].strip() for line in ours] == ["V", "VA"]
    lines = (run / "evaluation/modalities.csv").read_text().splitlines()
    assert lines[0].startswith("method,modality,told length,told length low,told length high,toy war,")
    assert [line.split(",")[1:3] for line in lines[1:]] == [["V", ""], ["VA", "2"]]
    assert lines[1].split(",")[5] == "37.5"


def test_the_verb(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "a=b, (copy)"
    prediction = Prediction(
        "librispeech", "test-clean/1-1-1", "test-clean", "Transcribe.", "SHE SELLS", "she sells", modality="A"
    )
    make(folder=root.name, predictions=[prediction])
    target = "omnihuman.benchmark.librispeech.LibriSpeech"
    config = f"{{run: net, size: nano, modality: A, benchmark: {{_target_: {target}, root: gone}}}}"
    (root / "config.yaml").write_text(config)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import runpy, sys\nrunpy.run_module('omnihuman.report', run_name='__main__')\n"
            "heavy = [n for n in ('transformers', 'lightning', 'omnihuman.model', 'av') if n in sys.modules]\n"
            "assert not heavy, heavy\n"
        )
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = call(f"folder={root}", "resamples=50")
    assert done.returncode == 0, done.stderr
    assert "| Qwen2-Audio | A |" in done.stdout and (root / "index.html").is_file()
    assert "exactly one of run=, folder= and study=" in call().stderr

    described = Prediction(
        "dfec", "0", "", "Describe.", "A man.", "A man smiles.", meta={"source": "DFEW"}, modality="V"
    )
    folder = make("runs/nano/net/evaluation/dfec/V", predictions=[described])
    target = "omnihuman.benchmark.dfec.DFEC"
    (folder / "config.yaml").write_text(
        f"{{run: net, size: nano, modality: V, benchmark: {{_target_: {target}, root: x}}}}"
    )
    done = call("run=net", "benchmark=dfec", "judge=rule", "estimate=true")
    assert done.returncode == 0 and " calls " in done.stdout, done.stderr
    assert "name one, judge=endpoint" in call("run=net", "estimate=true").stderr


def test_the_config_is_whole() -> None:
    config = compose_config([], "report")
    assert config.get("judge") is None and config.folder is None and config.publish is False


def test_the_spread_over_folds() -> None:
    def score(name: str, value: float) -> Score:
        return Score.mean(name, ["a"], [value])

    report = [score("war", 0.7), score("war/fold 1", 0.6), score("war/fold 2", 0.8), score("uar", 0.5)]
    assert _spread("war", report) == pytest.approx(200**0.5) and _spread("uar", report) is None


def test_chance_where_options_have_no_classes(make: Make) -> None:
    def question(name: str, task: str, options: str, answer: str) -> Prediction:
        meta = {"candidates": list(options), "video": name}
        return Prediction("mvbench_human", name, task, "Which?", "a", answer, tuple(options), meta, modality="V")

    asked = [question("1", "action_count", "abcd", "a"), question("2", "action_sequence", "ab", "(B)")]
    folder = make(predictions=asked)
    config = (folder / "config.yaml").read_text().replace("toy.Toy", "mvbench_human.MVBenchHuman\n  root: gone")
    (folder / "config.yaml").write_text(config)
    report = report_folder(folder, resamples=50)
    assert report["floors"][0]["method"] == "chance" and report["floors"][0]["scores"]["avg"] == 37.5
    assert report["scores"]["avg"]["value"] == 50.0 and report["support"] == {}
