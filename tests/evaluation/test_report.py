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
from omnihuman.evaluation.folder import find_evaluations
from omnihuman.evaluation.metrics import Bootstrap, _compute_group_std
from omnihuman.evaluation.report import report_folder, report_run
from omnihuman.judge.base import Ledger
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import interval

Write = Callable[..., Path]
FEW = Bootstrap(resamples=50)


def test_metrics_match_those_by_hand(write_evaluation: Write) -> None:
    folder = write_evaluation()
    report = report_folder(folder, bootstrap=Bootstrap(resamples=200))
    assert report == json.loads((folder / "metrics.json").read_text())
    war, uar = report["scores"]["war"], report["scores"]["uar"]
    assert war["value"] == 68.75 and uar["value"] == pytest.approx(100 * (5 / 6 + 2 / 4 + 4 / 6) / 3, abs=1e-6)
    ends = interval(Score.mean("war", list(map(str, range(16))), [1.0] * 11 + [0.0] * 5), 0.95, 200, 0)
    assert (war["low"], war["high"]) == pytest.approx(ends, abs=7) and war["low"] < 68.75 < war["high"]
    assert (report["n"], report["n_invalid"], report["n_missing_media"], report["n_missing_audio"]) == (16, 1, 1, 1)
    assert report["support"] == {"sad": 6, "happy": 4, "neutral": 6}
    assert report["floors"] == [{"method": "always “sad”", "scores": {"war": 37.5, "uar": 33.333333}}]
    assert report["rules"] == {"label": 14, "invalid": 1, "unanswered": 1}
    assert report["protocol"] == {"folds": "2", "missing media": "1 of 17 skipped"}
    assert report["seconds_per_sample"] == 0.5 and report["groups"] == {"fold 1": 8, "fold 2": 8}


def test_parsed_answers_are_written_and_predictions_stay(write_evaluation: Write) -> None:
    folder = write_evaluation()
    predictions = (folder / "predictions.jsonl").read_bytes()
    report_folder(folder, bootstrap=FEW)
    assert (folder / "predictions.jsonl").read_bytes() == predictions
    lines = [json.loads(line) for line in (folder / "parsed.jsonl").read_text().splitlines()]
    assert [line["correct"] for line in lines].count(True) == 11
    assert lines[6] == {
        "id": "00006",
        "group": "fold 1",
        "reference": "happy",
        "answer": "<script>alert(1)</script>",
        "parsed": None,
        "rule": "invalid",
        "correct": False,
    }


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_copied_folder_gives_the_same_bytes(write_evaluation: Write, tmp_path: Path) -> None:
    folder = write_evaluation(num_media=2)
    report_folder(folder, bootstrap=FEW)
    files = read_files(folder)
    assert set(files) >= {"metrics.json", "table.md", "table.tex", "table.csv", "per_class.csv", "index.html"}
    assert set(files) >= {"confusion_fold_1.csv", "confusion_fold_2.png", "confusion_pooled.png"}
    copy = tmp_path / "elsewhere/deep"
    copy.mkdir(parents=True)
    for name in ("predictions.jsonl", "config.yaml", "dataset_manifest.json"):
        shutil.copy(folder / name, copy / name)
    shutil.copytree(folder / "media", copy / "media")
    report_folder(copy, bootstrap=FEW)
    assert read_files(copy) == files


def test_charts_of_an_older_report_are_removed(write_evaluation: Write) -> None:
    folder = write_evaluation()
    (folder / "confusion_fold_9.png").write_bytes(b"")
    report_folder(folder, bootstrap=FEW)
    assert not (folder / "confusion_fold_9.png").exists()


def test_an_unfinished_evaluation_is_marked(write_evaluation: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_evaluation(has_manifest=False)
    reason = "unfinished: 16 predictions"
    assert report_folder(folder, bootstrap=FEW)["incomplete_reason"] == reason
    assert reason in caplog.text
    assert f"n = 16, {reason}" in (folder / "table.md").read_text()
    assert reason in (folder / "index.html").read_text()


class FakeJudge:
    """Gives every text the mark 4, but fails on the first ``num_failures``."""

    id, offline = "gpt-x, seed 0", False

    def __init__(self, num_failures: int) -> None:
        self.num_failures, self.ledger = num_failures, Ledger(num_items=50, num_judged=50 - num_failures)

    def __call__(self, name: str) -> float | None:
        return None if int(name) < self.num_failures else 4.0


def build_free_texts(count: int, answer: str) -> list[Prediction]:
    return [Prediction("free_text", f"{n}", "", "What?", "a man", answer) for n in range(count)]


def test_a_report_without_judge_names_none(write_evaluation: Write) -> None:
    folder = write_evaluation(predictions=build_free_texts(50, "a"), benchmark="FreeText")
    assert report_folder(folder, bootstrap=FEW)["judge"] is None


@pytest.mark.parametrize(("num_failures", "text"), [(1, "4.00"), (2, "– (96 % judged)")])
def test_the_table_names_the_judge_and_its_coverage(write_evaluation: Write, num_failures: int, text: str) -> None:
    folder = write_evaluation(predictions=build_free_texts(50, "a"), benchmark="FreeText")
    mark = report_folder(folder, FakeJudge(num_failures), bootstrap=FEW)["scores"]["mark"]
    assert mark["coverage"] == 1 - num_failures / 50 and mark["n"] == 50 - num_failures
    table = (folder / "table.md").read_text()
    assert "mark (gpt-x, seed 0)" in table and text in table
    assert json.loads((folder / "judge.json").read_text())["num_judged"] == 50 - num_failures
    report_folder(folder, FakeJudge(num_failures), force=True, bootstrap=FEW)
    assert "judged)" not in (folder / "table.md").read_text()


def write_run(write_evaluation: Write, sixteen: list[Prediction]) -> Path:
    """Write a run with two views of one benchmark and one of another."""
    first = write_evaluation()
    sad = [replace(prediction, answer="sad") for prediction in sixteen]
    write_evaluation("runs/nano/net/evaluation/toy/V", predictions=sad, view="V")
    texts = build_free_texts(4, "aa")
    write_evaluation("runs/nano/net/evaluation/free_text/VA", predictions=texts, benchmark="FreeText")
    return first.parents[2]


def test_a_run_has_a_table_per_benchmark_and_one_over_all(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    run = write_run(write_evaluation, sixteen)
    text = report_run(run, find_evaluations(run), bootstrap=FEW)
    table = (run / "evaluation/toy/table.md").read_text()
    assert table in text and "Old & Wise" in table
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| net |")]
    assert [row[2].strip() for row in rows] == ["V", "VA"]
    lines = (run / "evaluation/views.csv").read_text().splitlines()
    assert lines[0].startswith("method,view,free_text length,free_text length low,free_text length high,toy war,")
    assert [line.split(",")[1:3] for line in lines[1:]] == [["V", ""], ["VA", "2"]]
    assert lines[1].split(",")[5] == "37.5"


def test_a_baseline_is_compared_with_its_own_benchmark(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    run = write_run(write_evaluation, sixteen)
    report_run(run, find_evaluations(run), baseline=run / "evaluation/toy/V", bootstrap=FEW)
    assert "disagrees with net, V" in (run / "evaluation/toy/VA/index.html").read_text()
    assert "disagrees with" not in (run / "evaluation/free_text/VA/index.html").read_text()
    with pytest.raises(ValueError, match=r"baseline: .*free_text; .*\btoy\b"):
        report_run(run, find_evaluations(run, "toy"), baseline=run / "evaluation/free_text/VA")


def call_report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``omnihuman.report`` in a folder and check that it imports no heavy package."""
    code = (
        "import runpy, sys\nrunpy.run_module('omnihuman.report', run_name='__main__')\n"
        "heavy = [n for n in ('transformers', 'lightning', 'omnihuman.model', 'av') if n in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def build_config_text(view: str, target: str) -> str:
    return f"{{run: net, size: nano, view: {view}, benchmark: {{_target_: {target}, root: absent}}}}"


def test_the_command_reports_a_folder_without_heavy_imports(write_evaluation: Write, tmp_path: Path) -> None:
    prediction = Prediction(
        "librispeech", "test-clean/1-1-1", "test-clean", "Transcribe.", "SHE SELLS", "she sells", view="A"
    )
    folder = write_evaluation("a=b, (copy)", predictions=[prediction])
    (folder / "config.yaml").write_text(build_config_text("A", "omnihuman.benchmark.librispeech.LibriSpeech"))
    process = call_report(tmp_path, f"folder={folder}", "resamples=50")
    assert process.returncode == 0, process.stderr
    assert "| Qwen2-Audio | A |" in process.stdout and (folder / "index.html").is_file()
    assert "folder=, study= and gallery=" in call_report(tmp_path).stderr


def test_the_command_estimates_the_costs_of_a_judge(write_evaluation: Write, tmp_path: Path) -> None:
    prediction = Prediction("dfec", "0", "", "Describe.", "A man.", "A man smiles.", meta={"source": "DFEW"}, view="V")
    folder = write_evaluation("runs/nano/net/evaluation/dfec/V", predictions=[prediction])
    (folder / "config.yaml").write_text(build_config_text("V", "omnihuman.benchmark.dfec.DFEC"))
    process = call_report(tmp_path, "run=net", "benchmark=dfec", "judge=rule", "estimate=true")
    assert process.returncode == 0 and " calls " in process.stdout, process.stderr
    assert "add judge=endpoint" in call_report(tmp_path, "run=net", "estimate=true").stderr


def test_the_config_composes() -> None:
    config = compose_config([], "report")
    assert config.get("judge") is None and config.folder is None and config.publish is False


def test_the_standard_deviation_is_over_the_groups_of_a_score() -> None:
    values = {"war": 0.7, "war/fold 1": 0.6, "war/fold 2": 0.8, "uar": 0.5}
    scores = [Score.mean(name, ["a"], [value]) for name, value in values.items()]
    assert _compute_group_std("war", scores) == pytest.approx(200**0.5) and _compute_group_std("uar", scores) is None


def test_the_floor_of_options_without_classes_is_chance(write_evaluation: Write) -> None:
    def build(name: str, task: str, options: str, answer: str) -> Prediction:
        meta = {"candidates": list(options), "video": name}
        return Prediction("mvbench_human", name, task, "Which?", "a", answer, tuple(options), meta, view="V")

    predictions = [build("1", "action_count", "abcd", "a"), build("2", "action_sequence", "ab", "(B)")]
    folder = write_evaluation(predictions=predictions)
    config = (folder / "config.yaml").read_text().replace("toy.Toy", "mvbench_human.MVBenchHuman\n  root: absent")
    (folder / "config.yaml").write_text(config)
    report = report_folder(folder, bootstrap=FEW)
    assert report["floors"][0]["method"] == "chance" and report["floors"][0]["scores"]["avg"] == 37.5
    assert report["scores"]["avg"]["value"] == 50.0 and report["support"] == {}
