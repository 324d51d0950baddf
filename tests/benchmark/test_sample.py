"""The built-in corpus as a benchmark."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.sample import TASKS, Sample
from omnihuman.build import build, compose_part
from omnihuman.corpus.write import MARKER
from omnihuman.modality import View
from omnihuman.source import sample as source


def build_val(corpus: Path, **options: Any) -> Sample:
    return Sample(str(corpus), split="val", **options)


def test_emotion_task(corpus: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = build_val(corpus)
    questions = benchmark.questions()
    groups = {question.group for question in questions}
    assert groups <= {"face", "voice", "both", "none"} and len(groups) > 1
    assert all(q.reference in benchmark.labels and set(q.options) == set(benchmark.labels) for q in questions)
    assert all(q.record.messages[1] == ("assistant", "") and len(q.record.messages) == 2 for q in questions)
    predictions = answered(questions, [q.reference if q.group == "face" else "I cannot say" for q in questions])
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    share = 100 * sum(q.group == "face" for q in questions) / len(questions)
    assert scores["war"] == pytest.approx(share)
    assert {name: scores[f"war/{name}"] for name in groups} == {name: 100.0 * (name == "face") for name in groups}
    assert benchmark.parse(predictions[0])[1] in ("label", "invalid")


def test_every_task_has_scores(corpus: Path, answered: Callable[..., list[Prediction]]) -> None:
    kinds = set()
    for task, kind in TASKS.items():
        benchmark = build_val(corpus, task=task)
        try:
            questions = benchmark.questions()
        except ValueError as error:
            assert f"task={task}" in str(error), "the small corpus has none"
            continue
        kinds.add(kind)
        correct = [", ".join(q.reference) if isinstance(q.reference, list) else q.reference for q in questions]
        perfect = benchmark.scores(answered(questions, correct))
        silent = benchmark.scores(answered(questions, [None] * len(correct)))
        best = {"label": 100.0, "choice": 100.0, "labels": 100.0, "speech": 0.0}.get(kind)
        if best is not None:
            assert perfect[0].value == pytest.approx(best), task
            assert silent[0].value == pytest.approx(100.0 if kind == "speech" else 0.0), task
        else:
            assert perfect[1].value == pytest.approx(1.0) and silent[0].value == 0.0, task
    assert kinds == set(TASKS.values())


def test_needs_selects_questions_with_all_slots(corpus: Path) -> None:
    both = build_val(corpus, needs=["video", "audio"]).questions()
    assert 0 < len(both) < len(build_val(corpus).questions())
    assert [q.id for q in build_val(corpus, needs="video").questions()] == [
        q.id for q in build_val(corpus, needs=["video"]).questions()
    ]
    assert all(q.record.slots == ("video", "audio") and q.record.needs == () for q in both)
    for view in (View("A"), View("F"), View("VA")):
        assert all(question.record.restrict(view) is not None for question in both)


def test_yaml_builds_the_class(corpus: Path) -> None:
    built = build(compose_part("benchmark", "sample"), root=str(corpus), split="val")
    assert [q.id for q in built.questions()] == [q.id for q in build_val(corpus).questions()]


def test_a_missing_corpus_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def generate(folder: Path, seed: int) -> None:
        calls.append((folder, seed))
        raise InterruptedError

    monkeypatch.setattr(source, "write_corpus", generate)
    with pytest.raises(InterruptedError):
        Sample(str(tmp_path / "sample"), corpus_seed=3).questions()
    assert calls == [(tmp_path / "sample", 3)]


@pytest.mark.parametrize(("option", "value"), [("task", "smell"), ("needs", ["smell"])])
def test_an_invalid_option_raises(option: str, value: Any, corpus: Path) -> None:
    with pytest.raises(ValueError, match=f"{option}=.*smell.*: "):
        build_val(corpus, **{option: value})


def test_an_invalid_record_raises(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text('[{"id": "1"}]')
    shutil.copy(corpus / MARKER, tmp_path)
    with pytest.raises(ValueError, match=r"val\.json\[0\]: conversations .*list"):
        build_val(tmp_path).questions()
