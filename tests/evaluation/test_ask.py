"""Asking: batches, controls, resuming, several processes; with an answerer that knows no model."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from omnihuman.benchmark.base import Benchmark, Prediction, Question
from omnihuman.data import dataset
from omnihuman.data.dataset import Planned
from omnihuman.data.media import Header
from omnihuman.data.record import Record
from omnihuman.evaluation import answerer as real
from omnihuman.evaluation.answerer import Answer
from omnihuman.evaluation.ask import LEADER, Manner, ask, batches, everything_in, gather
from omnihuman.metric.score import Score


class Echo(Benchmark):
    name = "echo"

    def __init__(self, turns: int = 1) -> None:
        self.turns = turns

    def questions(self) -> list[Question]:
        return [question(number) for number in range(7)]

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return asked.answer, "all"

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        return [Score.mean("right", [one.id for one in predictions], [1.0] * len(predictions))]

    def follow_up(self, question: Question, answer: str) -> str | None:
        return None if self.turns == 1 else f"You said {answer}. So?"


def question(number: int) -> Question:
    text = (("user", f"<video>\n<audio>\nquestion {number}"), ("assistant", ""))
    return Question(Record(f"q{number}", Path(f"{number}.mp4"), "video", text, ("video", "audio")), f"a{number}")


class Samples(dataset.Samples):
    """Records with lengths; a record named in ``bad`` cannot be read."""

    def __init__(self, records: Sequence[Record], bad: Sequence[str] = ()) -> None:
        self.skipped: list[dict[str, str]] = []
        self.bad = bad
        header = Header(True, (0.0, 2.0))
        self.planned = [Planned(one, header, {}, {}, len(one.messages[0][1]), 0) for one in records]

    def __getitem__(self, row: Any) -> Any:
        records = [self.planned[index].record for index in row.samples]
        skipped = [{"id": record.id, "message": "truncated"} for record in records if record.id in self.bad]
        return SimpleNamespace(records=[r for r in records if r.id not in self.bad], skipped=skipped)


class Answerer(real.Answerer):
    """Answers a question with its own words, and dies after so many batches."""

    def __init__(self, bad: Sequence[str] = (), dies_after: int = 10**9) -> None:
        self.bad, self.left = bad, dies_after
        self.asked: list[str] = []

    def plan(self, records: Sequence[Record]) -> Samples:
        return Samples(records, self.bad)

    def answer(self, batch: Any, options: Any = (), **how: Any) -> list[Answer]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked += [record.id for record in batch.records]
        return [Answer(record.messages[0][1].splitlines()[-1], 2) for record in batch.records]


MANNER = Manner("VA", batch_size=2, cards=0, num_workers=0)


def run(answerer: Answerer, folder: Path, benchmark: Benchmark | None = None, share: tuple[int, int] = (0, 1)) -> None:
    benchmark = benchmark or Echo()
    ask(answerer, benchmark, benchmark.questions(), folder, MANNER, share)


def test_every_question_is_asked_once_with_its_own_words(tmp_path: Path) -> None:
    run(answerer := Answerer(), tmp_path)
    found = gather(tmp_path, Echo().questions(), "echo")
    assert [one.id for one in found] == [f"q{n}" for n in range(7)]
    assert [one.answer for one in found] == [f"question {n}" for n in range(7)]
    assert [one.truth for one in found] == [f"a{n}" for n in range(7)] and found[0].modality == "VA"
    run(again := Answerer(), tmp_path)
    assert len(answerer.asked) == 7 and again.asked == []


def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(first := Answerer(dies_after=2), tmp_path)
    with (tmp_path / "predictions.jsonl").open("a") as lines:
        lines.write('{"benchmark": "echo", "id": "q')  # the kill came in the middle of a line
    run(second := Answerer(), tmp_path)
    assert len(first.asked) == 4 and sorted(first.asked + second.asked) == [f"q{n}" for n in range(7)]
    assert len(gather(tmp_path, Echo().questions(), "echo")) == 7


def test_shares_are_gathered_in_order_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    for rank in range(2):
        run(Answerer(), tmp_path, share=(rank, 3))
    with pytest.raises(ValueError, match=r"2 of 7 questions have no prediction, the first \['q2', 'q5'\]"):
        gather(tmp_path, Echo().questions(), "echo")
    run(Answerer(), tmp_path, share=(2, 3))
    assert [one.id for one in gather(tmp_path, Echo().questions(), "echo")] == [f"q{n}" for n in range(7)]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_a_second_process_waits_and_does_not_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.evaluation.ask.PATIENCE", 0.1)
    with (
        FileLock(tmp_path / "predictions.lock"),
        pytest.raises(ValueError, match="another process is asking"),
    ):
        run(Answerer(), tmp_path)


def test_a_share_ends_when_who_started_it_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEADER, str(os.getppid()))
    run(first := Answerer(), tmp_path, share=(0, 2))
    monkeypatch.setenv(LEADER, "1000000000")  # nobody's
    with pytest.raises(RuntimeError, match="has ended"):
        run(second := Answerer(), tmp_path, share=(1, 2))
    assert len(first.asked) == 4 and len(second.asked) == 2 and len(everything_in(tmp_path, "echo")) == 4


def test_what_cannot_be_read_is_an_error_of_its_own_and_not_an_answer(tmp_path: Path) -> None:
    run(Answerer(bad=["q3"]), tmp_path)
    found = {one.id: one for one in everything_in(tmp_path, "echo")}
    assert found["q3"].answer is None and found["q3"].error == "truncated" and found["q2"].error is None


def test_the_second_turn_is_the_one_that_counts(tmp_path: Path) -> None:
    run(Answerer(), tmp_path, Echo(turns=2))
    one = next(each for each in everything_in(tmp_path, "echo") if each.id == "q4")
    assert one.before == (("question 4", "question 4"),)
    assert one.prompt == one.answer == "You said question 4. So?"


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 6), st.integers(50, 200))
def test_batches_hold_every_sample_once_within_their_budget(lengths: list[int], size: int, most: int) -> None:
    rows: Iterator[Any] = batches(lengths, size, most)
    found = [row.samples for row in rows]
    assert sorted(index for row in found for index in row) == list(range(len(lengths)))
    for row in found:
        assert len(row) <= size and len(row) * max(lengths[index] for index in row) <= max(most, 50)
