"""Answers to all questions: batches, controls, resumption, several processes; with an answerer without a model."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from omnihuman.benchmark.base import Benchmark, Prediction, Question
from omnihuman.data import dataset
from omnihuman.data.media import Header
from omnihuman.data.plan.planned import PlanList, Planned
from omnihuman.data.record import Record
from omnihuman.evaluation.answering import (
    LEADER,
    EvalOptions,
    answer_questions,
    group_by_length,
    merge_predictions,
    read_all_predictions,
)
from omnihuman.inference import answerer as evaluation_answerer
from omnihuman.inference.answer import Answer
from omnihuman.metric.score import Score
from omnihuman.modality import View

NUM_QUESTIONS = 7
IDS = [f"q{number}" for number in range(NUM_QUESTIONS)]


class Echo(Benchmark):
    name = "echo"

    def __init__(self, turns: int = 1) -> None:
        self.turns = turns

    def questions(self) -> list[Question]:
        return [build_question(number) for number in range(NUM_QUESTIONS)]

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return prediction.answer, "all"

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids = [prediction.id for prediction in predictions]
        return [Score.mean("right", ids, [1.0] * len(ids))]

    def follow_up(self, question: Question, answer: str) -> str | None:
        return None if self.turns == 1 else f"You said {answer}. So?"


def build_question(number: int) -> Question:
    messages = (("user", f"<video>\n<audio>\nquestion {number}"), ("assistant", ""))
    record = Record(f"q{number}", Path(f"{number}.mp4"), "video", messages, ("video", "audio"))
    return Question(record, f"a{number}")


class Samples(dataset.Samples):
    """Records with lengths; those whose ids are in ``bad_ids`` cannot be read."""

    def __init__(self, records: Sequence[Record], bad_ids: Sequence[str] = ()) -> None:
        self.bad_ids = bad_ids
        header = Header(True, (0.0, 2.0))
        lengths = [len(record.messages[0][1]) for record in records]
        samples = [Planned(record, header, {}, {}, length, 0) for record, length in zip(records, lengths, strict=True)]
        self.planned = PlanList(samples)

    def __getitem__(self, micro_batch: Any) -> Any:
        records, skipped = [], []
        for index in micro_batch.indices:
            record = self.planned[index].record
            if record.id in self.bad_ids:
                skipped.append({"id": record.id, "message": "truncated"})
            else:
                records.append(record)
        return SimpleNamespace(records=records, skipped=skipped)


class Answerer(evaluation_answerer.Answerer):
    """Repeats every question as its answer; is interrupted after ``max_batches`` batches."""

    def __init__(self, bad_ids: Sequence[str] = (), max_batches: int = 10**9) -> None:
        self.bad_ids, self.batches_left, self.prompting = bad_ids, max_batches, None
        self.answered: list[str] = []

    def plan_questions(self, records: Sequence[Record]) -> Samples:
        return Samples(records, self.bad_ids)

    def answer_batch(self, batch: Any, options: Any = (), **generation_kwargs: Any) -> list[Answer]:
        if not self.batches_left:
            raise KeyboardInterrupt
        self.batches_left -= 1
        self.answered += [record.id for record in batch.records]
        return [Answer(record.messages[0][1].splitlines()[-1], 2) for record in batch.records]


OPTIONS = EvalOptions(View("VA"), batch_size=2, cards=0, num_workers=0)


def run(answerer: Answerer, folder: Path, benchmark: Benchmark | None = None, share: tuple[int, int] = (0, 1)) -> None:
    benchmark = benchmark or Echo()
    answer_questions(answerer, benchmark, benchmark.questions(), folder, OPTIONS, share)


def merge(folder: Path) -> list[Prediction]:
    return merge_predictions(folder, Echo().questions(), "echo")


def read_by_id(folder: Path) -> dict[str, Prediction]:
    return {prediction.id: prediction for prediction in read_all_predictions(folder, "echo")}


def test_every_question_is_answered_once_with_its_own_prompt(tmp_path: Path) -> None:
    answerer, second_answerer = Answerer(), Answerer()
    run(answerer, tmp_path)
    predictions = merge(tmp_path)
    assert [prediction.id for prediction in predictions] == IDS
    assert [prediction.answer for prediction in predictions] == [f"question {n}" for n in range(NUM_QUESTIONS)]
    assert [prediction.reference for prediction in predictions] == [f"a{n}" for n in range(NUM_QUESTIONS)]
    assert predictions[0].view == "VA"
    run(second_answerer, tmp_path)
    assert len(answerer.answered) == NUM_QUESTIONS and second_answerer.answered == []


def test_a_killed_evaluation_resumes_with_the_missing_questions(tmp_path: Path) -> None:
    first, second = Answerer(max_batches=2), Answerer()
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path)
    with (tmp_path / "predictions.jsonl").open("a") as lines:
        lines.write('{"benchmark": "echo", "id": "q')  # killed while it wrote a line
    run(second, tmp_path)
    assert len(first.answered) == 4 and sorted(first.answered + second.answered) == IDS
    assert len(merge(tmp_path)) == NUM_QUESTIONS


def test_shares_are_merged_in_order_and_a_missing_share_raises(tmp_path: Path) -> None:
    for rank in range(2):
        run(Answerer(), tmp_path, share=(rank, 3))
    with pytest.raises(ValueError, match=r"2 of 7 .*\['q2', 'q5'\]"):
        merge(tmp_path)
    run(Answerer(), tmp_path, share=(2, 3))
    assert [prediction.id for prediction in merge(tmp_path)] == IDS
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_a_second_process_for_the_same_questions_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.evaluation.answering.LOCK_TIMEOUT", 0.1)
    with (
        FileLock(tmp_path / "predictions.lock"),
        pytest.raises(ValueError, match="another process answers"),
    ):
        run(Answerer(), tmp_path)


def test_a_share_ends_after_the_process_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Answerer(), Answerer()
    monkeypatch.setenv(LEADER, str(os.getppid()))
    run(first, tmp_path, share=(0, 2))
    monkeypatch.setenv(LEADER, "1000000000")  # no process has this id
    with pytest.raises(RuntimeError, match="has ended"):
        run(second, tmp_path, share=(1, 2))
    assert len(first.answered) == 4 and len(second.answered) == 2
    assert len(read_all_predictions(tmp_path, "echo")) == 4


def test_an_unreadable_file_is_an_error_and_not_an_answer(tmp_path: Path) -> None:
    run(Answerer(bad_ids=["q3"]), tmp_path)
    by_id = read_by_id(tmp_path)
    assert by_id["q3"].answer is None and by_id["q3"].error == "truncated" and by_id["q2"].error is None


def test_the_second_turn_is_the_prediction(tmp_path: Path) -> None:
    run(Answerer(), tmp_path, Echo(turns=2))
    prediction = read_by_id(tmp_path)["q4"]
    assert prediction.previous_turns == (("question 4", "question 4"),)
    assert prediction.prompt == prediction.answer == "You said question 4. So?"


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 6), st.integers(50, 200))
def test_batches_have_every_sample_once_within_max_tokens(lengths: list[int], size: int, max_tokens: int) -> None:
    batches = [micro_batch.indices for micro_batch in group_by_length(lengths, size, max_tokens)]
    indices: list[int] = []
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) <= size and len(batch) * longest <= max_tokens
        indices += batch
    assert sorted(indices) == list(range(len(lengths)))
