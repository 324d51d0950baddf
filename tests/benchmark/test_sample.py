"""The built-in corpus as a benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.sample import TASKS, Sample
from omnihuman.build import build, compose_part
from omnihuman.data import module


def val(corpus: Path, **switches: Any) -> Sample:
    return Sample(str(corpus), split="val", **switches)


def test_emotions(corpus: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = val(corpus)
    questions = benchmark.questions()
    groups = {question.group for question in questions}
    assert groups <= {"face", "voice", "both", "none"} and len(groups) > 1
    assert all(q.truth in benchmark.labels and set(q.options) == set(benchmark.labels) for q in questions)
    assert all(q.record.messages[1] == ("assistant", "") and len(q.record.messages) == 2 for q in questions)
    asked = answered(questions, [q.truth if q.group == "face" else "I cannot say" for q in questions])
    scores = {score.name: score.value for score in benchmark.scores(asked)}
    share = 100 * sum(q.group == "face" for q in questions) / len(questions)
    assert scores["war"] == pytest.approx(share)
    assert {name: scores[f"war/{name}"] for name in groups} == {name: 100.0 * (name == "face") for name in groups}
    assert benchmark.parse(asked[0])[1] in ("label", "invalid")


def test_every_task_can_be_scored(corpus: Path, answered: Callable[..., list[Prediction]]) -> None:
    seen = set()
    for task, kind in TASKS.items():
        benchmark = val(corpus, task=task)
        try:
            questions = benchmark.questions()
        except ValueError as error:
            assert f"task={task}" in str(error), "the few scenes of this corpus hold none"
            continue
        seen.add(kind)
        right = [", ".join(q.truth) if isinstance(q.truth, list) else q.truth for q in questions]
        perfect, silent = (benchmark.scores(answered(questions, some)) for some in (right, [None] * len(right)))
        best = {"label": 100.0, "choice": 100.0, "labels": 100.0, "speech": 0.0}.get(kind)
        if best is not None:
            assert perfect[0].value == pytest.approx(best), task
            assert silent[0].value == pytest.approx(100.0 if kind == "speech" else 0.0), task
        else:
            assert perfect[1].value == pytest.approx(1.0) and silent[0].value == 0.0, task
    assert seen == set(TASKS.values())


def test_only_what_is_seen_and_heard(corpus: Path) -> None:
    both = val(corpus, needs=["video", "audio"]).questions()
    assert 0 < len(both) < len(val(corpus).questions())
    assert [q.id for q in val(corpus, needs="video").questions()] == [
        q.id for q in val(corpus, needs=["video"]).questions()
    ]
    assert all(q.record.slots == ("video", "audio") and q.record.needs == () for q in both)
    assert all(q.record.seen_as(view) is not None for q in both for view in ("audio", "faces", "frames_audio"))


def test_the_yaml_is_the_class(corpus: Path) -> None:
    built = build(compose_part("benchmark", "sample"), root=str(corpus), split="val")
    assert [q.id for q in built.questions()] == [q.id for q in val(corpus).questions()]


def test_the_corpus_is_made_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(folder: str, seed: int) -> None:
        made.append((folder, seed))
        raise InterruptedError

    monkeypatch.setattr(module, "sample_corpus", make)
    with pytest.raises(InterruptedError):
        Sample(str(tmp_path / "sample"), corpus_seed=3).questions()
    assert made == [(str(tmp_path / "sample"), 3)]


@pytest.mark.parametrize(("switch", "value"), [("task", "smell"), ("needs", ["smell"])])
def test_a_switch_that_does_not_hold(switch: str, value: Any, corpus: Path) -> None:
    with pytest.raises(ValueError, match=f"{switch}=.*smell.*: choose from"):
        val(corpus, **{switch: value})


def test_a_broken_record_is_named(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text('[{"id": "1"}]')
    with pytest.raises(ValueError, match=r"val\.json\[0\]: conversations must be a list"):
        val(tmp_path).questions()
