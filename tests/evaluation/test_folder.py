import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.folder import (
    find_evaluations,
    load_benchmark,
    load_evaluation,
    read_predictions,
    repair_last_line,
)

Write = Callable[..., Path]


def test_an_evaluation_is_loaded_from_its_folder(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    evaluation = load_evaluation(write_evaluation())
    assert list(evaluation.predictions) == sixteen
    assert (evaluation.run, evaluation.view, evaluation.incomplete_reason) == ("net", "VA", "")
    assert {group: len(indices) for group, indices in evaluation.groups.items()} == {"fold 1": 8, "fold 2": 8}
    assert evaluation.correct.count(True) == 11
    assert evaluation.parsed[-1] == (None, "unanswered")


def test_names_include_tag_and_control(write_evaluation: Write) -> None:
    evaluation = load_evaluation(write_evaluation(run="net/lr=1", tag="cot", control="shuffled_audio"))
    assert (evaluation.run, evaluation.view) == ("net/lr=1/cot", "VA, shuffled audio")


def test_backups_and_empty_evaluations_are_not_found(write_evaluation: Write) -> None:
    for name in ("VA", "VA.1", "V", "VA-lr0", "VA-lr0.1"):
        write_evaluation(f"runs/nano/net/evaluation/toy/{name}", tag=name.partition("-")[2] or None)
    run = write_evaluation("runs/nano/net/evaluation/toy/A").parents[2]
    (run / "evaluation/toy/A/predictions.jsonl").write_text("")  # killed before the first answer
    assert [folder.name for folder in find_evaluations(run)] == ["V", "VA", "VA-lr0", "VA-lr0.1"]


def test_an_incomplete_last_line_is_skipped_and_removed(
    write_evaluation: Write, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_evaluation() / "predictions.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[:-40])
    with caplog.at_level(logging.WARNING):
        assert len(read_predictions(file)) == 15
    assert f"{file}:16: " in caplog.text and "incomplete" in caplog.text
    assert load_evaluation(file.parent).incomplete_reason == "incomplete: 15 of 16 predictions"
    repair_last_line(file)
    assert file.read_bytes() == b"".join(content.splitlines(keepends=True)[:-1])
    repair_last_line(file)
    assert len(read_predictions(file)) == 15


def test_a_complete_last_line_without_newline_counts(write_evaluation: Write) -> None:
    file = write_evaluation() / "predictions.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert len(read_predictions(file)) == 16
    repair_last_line(file)
    assert file.read_bytes() == content
    repair_last_line(file.with_name("absent.jsonl"))


def test_a_last_line_cut_within_a_character_is_skipped(write_evaluation: Write) -> None:
    file = write_evaluation() / "predictions.jsonl"
    file.write_bytes(file.read_bytes() + '{"benchmark": "tö'.encode()[:-1])
    assert len(read_predictions(file)) == 16


def test_invalid_lines_raise_with_their_number(write_evaluation: Write) -> None:
    file = write_evaluation() / "predictions.jsonl"
    lines = file.read_text().splitlines()

    def read_message(*changed: str) -> str:
        file.write_text("\n".join(changed) + "\n")
        with pytest.raises(ValueError) as error:
            read_predictions(file, "toy")
        return str(error.value)

    first = json.loads(lines[0])
    message = read_message(lines[0], lines[1][:-9], lines[2])
    assert f"{file}:2: invalid JSON" in message and "remove the line" in message
    assert re.search(rf"{file}:3: .*'00000'.*line 1\b", read_message(*lines[:2], lines[0]))
    message = read_message(json.dumps({**first, "benchmark": "dfew"}))
    assert re.search(rf"{file}:1: .*\bdfew; .*\btoy\b", message)
    message = read_message(json.dumps({**first, "mood": 1}), lines[1])
    assert f"{file}:1: " in message and "['mood']" in message


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jsonl: no such file"):
        read_predictions(tmp_path / "absent.jsonl")


def test_two_benchmarks_in_a_file_raise(write_evaluation: Write) -> None:
    file = write_evaluation() / "predictions.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1].replace('"toy"', '"dfew"')]) + "\n")
    with pytest.raises(ValueError, match=r":2: .*\bdfew; .*\btoy\b"):
        read_predictions(file)


def test_a_reference_outside_the_labels_raises(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    sixteen[3] = Prediction("toy", "x", "fold 1", "Which?", "angry", "sad")
    evaluation = load_evaluation(write_evaluation(predictions=sixteen))
    with pytest.raises(ValueError, match=r"predictions\.jsonl: x: unknown .*'angry'.*\btoy's"):
        _ = evaluation.references


def test_a_folder_without_an_evaluation_raises(write_evaluation: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder .*config\.yaml and predictions\.jsonl"):
        load_benchmark(tmp_path)
    folder = write_evaluation(predictions=[])
    with pytest.raises(ValueError, match="is empty"):
        load_evaluation(folder)
    (folder / "config.yaml").write_text("run: net\n")
    with pytest.raises(ValueError, match=r"config\.yaml: missing .*\['benchmark', 'view'\]"):
        load_benchmark(folder)
    (folder / "config.yaml").write_text("{run: net, view: V, benchmark: {_target_: omnihuman.llm.causal.CausalLM}}")
    with pytest.raises(ValueError, match=r"config\.yaml: .*benchmark\._target_ .*omnihuman\.benchmark"):
        load_benchmark(folder)


def test_a_judge_for_a_benchmark_without_one_raises(write_evaluation: Write) -> None:
    with pytest.raises(ValueError, match=r"toy .*without a judge.*judge="):
        load_benchmark(write_evaluation(), judge=object())


def test_evaluations_of_a_run_are_found(write_evaluation: Write, tmp_path: Path) -> None:
    run = tmp_path / "runs/nano/net"
    with pytest.raises(ValueError, match=r"no predictions .*none.*omnihuman evaluate"):
        find_evaluations(run)
    first, second = write_evaluation(), write_evaluation("runs/nano/net/evaluation/other/V")
    assert find_evaluations(run) == [second, first]
    assert find_evaluations(run, "toy") == [first]
    with pytest.raises(ValueError, match=r"no predictions .*\bdfew; .*\bother, toy\b.* run=.*/nano/net benchmark=dfew"):
        find_evaluations(run, "dfew")


def test_free_text_is_neither_right_nor_wrong(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    prediction = replace(sixteen[0], benchmark="free_text", options=())
    evaluation = load_evaluation(write_evaluation(predictions=[prediction], benchmark="FreeText"))
    assert evaluation.correct == [None]
