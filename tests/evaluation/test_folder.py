import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.folder import benchmark_of, find, mend, open_evaluation, read_predictions

Make = Callable[..., Path]


def test_reads_what_was_written(make: Make, sixteen: list[Prediction]) -> None:
    evaluation = open_evaluation(make())
    assert list(evaluation.predictions) == sixteen
    assert (evaluation.run, evaluation.modality, evaluation.unfinished) == ("net", "VA", "")
    assert {group: len(places) for group, places in evaluation.groups.items()} == {"fold 1": 8, "fold 2": 8}
    assert [one for one in evaluation.right].count(True) == 11
    assert evaluation.parsed[-1] == (None, "not asked")


def test_a_name_says_variant_tag_and_control(make: Make) -> None:
    evaluation = open_evaluation(make(variant="lr=1", tag="cot", control="shuffled_audio"))
    assert (evaluation.run, evaluation.modality) == ("net/lr=1/cot", "VA, shuffled audio")


def test_what_moved_aside_or_holds_no_answer_is_not_found(make: Make) -> None:
    for name in ("VA", "VA.1", "V", "VA-lr0", "VA-lr0.1"):
        make(f"runs/nano/net/evaluation/toy/{name}", tag=name.partition("-")[2] or None)
    run = make("runs/nano/net/evaluation/toy/A").parents[2]
    (run / "evaluation/toy/A/predictions.jsonl").write_text("")  # killed before the first answer
    assert [folder.name for folder in find(run)] == ["V", "VA", "VA-lr0", "VA-lr0.1"]


def test_a_last_line_cut_short_is_left_out_and_mended(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    file = make() / "predictions.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with caplog.at_level(logging.WARNING):
        assert len(read_predictions(file)) == 15
    assert f"{file}:16: the last line is cut short" in caplog.text
    assert "not the questions asked: 15 of 16" in open_evaluation(file.parent).unfinished
    mend(file)
    assert file.read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])
    mend(file)
    assert len(read_predictions(file)) == 15


def test_a_whole_last_line_without_its_end_counts(make: Make) -> None:
    file = make() / "predictions.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert len(read_predictions(file)) == 16
    mend(file)
    assert file.read_bytes() == whole
    mend(file.with_name("absent.jsonl"))


def test_a_file_cut_within_a_letter(make: Make) -> None:
    file = make() / "predictions.jsonl"
    file.write_bytes(file.read_bytes() + '{"benchmark": "tö'.encode()[:-1])
    assert len(read_predictions(file)) == 16


def test_bad_lines_are_named(make: Make) -> None:
    file = make() / "predictions.jsonl"
    lines = file.read_text().splitlines()

    def message(*changed: str) -> str:
        file.write_text("\n".join(changed) + "\n")
        with pytest.raises(ValueError) as caught:
            read_predictions(file, "toy")
        return str(caught.value)

    first = json.loads(lines[0])
    assert f"{file}:2: this is not JSON" in (said := message(lines[0], lines[1][:-9], lines[2])) and "take the" in said
    assert f"{file}:3: the id '00000' is already in line 1" in message(*lines[:2], lines[0])
    assert f"{file}:1: a prediction of dfew among those of toy" in message(json.dumps({**first, "benchmark": "dfew"}))
    assert f"{file}:1: this is not a prediction (keys missing or unknown: ['mood'])" in message(
        json.dumps({**first, "mood": 1}), lines[1]
    )
    with pytest.raises(ValueError, match=r"absent\.jsonl: there is no such file"):
        read_predictions(file.with_name("absent.jsonl"))


def test_several_benchmarks_in_a_file_do_not_mix(make: Make) -> None:
    file = make() / "predictions.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1].replace('"toy"', '"dfew"')]) + "\n")
    with pytest.raises(ValueError, match=":2: a prediction of dfew among those of toy"):
        read_predictions(file)


def test_a_truth_outside_the_labels_is_named(make: Make, sixteen: list[Prediction]) -> None:
    sixteen[3] = Prediction("toy", "x", "fold 1", "Which?", "angry", "sad")
    with pytest.raises(ValueError, match=r"predictions.jsonl: x: the truth 'angry' is none of toy's"):
        _ = open_evaluation(make(predictions=sixteen)).truths


def test_folders_that_are_none(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no evaluation"):
        benchmark_of(tmp_path)
    folder = make(predictions=[])
    with pytest.raises(ValueError, match="is empty"):
        open_evaluation(folder)
    (folder / "config.yaml").write_text("run: net\n")
    with pytest.raises(ValueError, match=r"config.yaml: the keys \['benchmark', 'modality'\] are missing"):
        benchmark_of(folder)
    (folder / "config.yaml").write_text("{run: net, modality: V, benchmark: {_target_: omnihuman.llm.causal.CausalLM}}")
    with pytest.raises(ValueError, match=r"it must be in omnihuman.benchmark"):
        benchmark_of(folder)


def test_a_judge_that_nobody_needs(make: Make) -> None:
    with pytest.raises(ValueError, match="toy is scored without a judge"):
        benchmark_of(make(), judge=object())


def test_find(make: Make, tmp_path: Path) -> None:
    run = tmp_path / "runs/nano/net"
    with pytest.raises(ValueError, match=r"holds no predictions of any benchmark, but nothing: python -m"):
        find(run)
    first, second = make(), make("runs/nano/net/evaluation/other/V")
    assert find(run) == [second, first]
    assert find(run, "toy") == [first]
    with pytest.raises(ValueError, match=r"no predictions of dfew, but other, toy: .* run=net benchmark=dfew"):
        find(run, "dfew")
