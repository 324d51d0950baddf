from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.emer import Emer, word_f1
from omnihuman.benchmark.emer_ov import PROMPT
from omnihuman.build import build, compose_part
from omnihuman.judge.base import Protocol, Verdict
from omnihuman.judge.rule import RuleJudge

V1 = """names,emotions,subtitles,reasons
sample_00000648,angry,Don't talk to me.,"He roars, and stares with wide eyes. His state is anger."
sample_00002518,sad,If he is here.,He misses somebody and feels sad.
"""
V2 = """name,chinese,english
sample_00000000,他很生气。,"He is furious, his fists shake."
sample_00000055,她很难过。,She cries; she is sad.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "gt-eng.csv").write_text(V1)
    (tmp_path / "final-EMER-reason.csv").write_text(V2, encoding="utf-8")
    (tmp_path / "video").mkdir()
    for name in ("00000648.mp4", "00002518.avi", "00000000.mp4", "00000055.mp4"):
        (tmp_path / f"video/sample_{name}").touch()
    return tmp_path


class FailingJudge(RuleJudge):
    """Fails on clues."""

    def query(self, protocol: Protocol, items: Any, repeat: int = 0) -> list[Verdict | None]:
        verdicts = super().query(protocol, items, repeat)
        return [None, *verdicts[1:]] if protocol.name == "emer_clue" else verdicts


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("emer", question.id, question.group, "", question.reference, text, meta=question.meta)


def test_questions_of_version_1(root: Path) -> None:
    questions = Emer(str(root), version="v1", subtitles="gt-eng.csv").questions()
    assert [question.id for question in questions] == ["sample_00000648", "sample_00002518"]
    assert questions[0].reference == "He roars, and stares with wide eyes. His state is anger."
    assert questions[0].meta == {"emotion": "angry"} and questions[1].record.file.suffix == ".avi"
    prompt = questions[0].record.messages[0][1]
    assert prompt.startswith("<video>\n<audio>\n") and "Don't talk to me." in prompt and prompt.endswith(PROMPT)
    assert questions[0].record.location.endswith("gt-eng.csv:2")


@pytest.mark.parametrize(("language", "reference"), [("eng", "He is furious, his fists shake."), ("chi", "他很生气。")])
def test_questions_of_version_2_in_both_languages(root: Path, language: Any, reference: str) -> None:
    first = Emer(str(root), language=language).questions()[0]
    assert (first.reference, first.meta, first.record.messages[0][1]) == (reference, {}, f"<video>\n<audio>\n{PROMPT}")


def test_word_f1_by_hand() -> None:
    # he is . 2 of 6 and 2 of 4
    assert word_f1("He is furious, his fists shake.", "he is quite calm") == pytest.approx(2 * 2 / 10)
    assert word_f1("他很生气。", "他生气") == pytest.approx(2 * 3 / 7)
    assert word_f1("He", "") == word_f1("", "") == 0


def test_scores_without_a_judge(root: Path) -> None:
    benchmark = Emer(str(root))
    answers = ["He is furious, his fists shake.", None]
    scores = benchmark.scores([answer(q, text) for q, text in zip(benchmark.questions(), answers, strict=True)])
    assert {score.name: score.value for score in scores} == pytest.approx(
        {"word_f1": 50, "ew_level1": 50, "ew_level2": 50}
    )
    chinese = Emer(str(root), language="chi")
    [score] = chinese.scores([answer(q, q.reference) for q in chinese.questions()])
    assert (score.name, score.value) == ("word_f1", 100)
    assert benchmark.protocol()["judge"] == "none: clue_overlap and label_overlap absent"


def test_scores_with_a_judge(root: Path) -> None:
    benchmark = Emer(str(root), judge=RuleJudge())
    answers = ["He is furious, his fists shake.", None]
    scores = benchmark.scores([answer(q, text) for q, text in zip(benchmark.questions(), answers, strict=True)])
    assert [(score.name, score.value) for score in scores[:2]] == [("clue_overlap", 5.0), ("label_overlap", 5.0)]
    assert [score.name for score in scores[2:]] == ["word_f1", "ew_level1", "ew_level2"] and "offline-rule" in scores[
        0
    ].note
    assert benchmark.protocol()["judge"] == "offline-rule"


def test_items_with_a_failed_judge_are_missing(root: Path) -> None:
    benchmark = Emer(str(root), judge=FailingJudge())
    clue, label, *_ = benchmark.scores([answer(question, question.reference) for question in benchmark.questions()])
    assert (clue.value, clue.ids, clue.coverage) == (10, ("sample_00000055",), 0.5)
    assert label.coverage == 1


def test_wheels_use_the_annotated_emotion_of_version_1(root: Path) -> None:
    benchmark = Emer(str(root), version="v1")
    answers = ["He is mad.", "She is happy."]
    scores = benchmark.scores([answer(q, text) for q, text in zip(benchmark.questions(), answers, strict=True)])
    assert scores[1].name == "ew_level1" and scores[1].value == pytest.approx(50)


def test_clips_in_the_training_data_are_counted(root: Path) -> None:
    (root / "train.json").write_text('[{"video": "mer2023/video/sample_00000055.avi"}, {"video": "x/other.mp4"}]')
    benchmark = Emer(str(root), train_records=str(root / "train.json"))
    assert benchmark.protocol()["clips in training"] == "train_records not read yet"
    assert [question.meta["in_training"] for question in benchmark.questions()] == [False, True]
    assert benchmark.protocol()["clips in training"] == "1 of 2"
    assert Emer(str(root)).protocol()["clips in training"].startswith("not checked")


def test_published_results_of_both_papers() -> None:
    rows = {(result.method, result.source): result.values for result in Emer.published}
    assert rows["Valley", "Omni-Emotion, table 2"] == {"clue_overlap": 7.24, "label_overlap": 5.77}
    assert rows["Valley", "FaVChat, table 4"] == {"clue_overlap": 7.31, "label_overlap": 5.76}
    assert len(rows) == len(Emer.published) == 19


def test_invalid_tables_raise(root: Path) -> None:
    (root / "video/sample_00000055.mp4").unlink()
    with pytest.raises(ValueError, match=r"final-EMER-reason\.csv:3: name: .*no file .*/sample_00000055\.mp4"):
        Emer(str(root)).questions()
    assert len(Emer(str(root), missing_media="skip").questions()) == 1
    with pytest.raises(ValueError, match=r"gt-chi\.csv: .*no such file"):
        Emer(str(root), version="v1", language="chi").questions()
    with pytest.raises(ValueError, match=r"gt-eng\.csv:1: .*\['name', 'english'\].*missing"):
        Emer(str(root), annotations="gt-eng.csv").questions()
    with pytest.raises(ValueError, match=r"version=v3: .*\bv1, v2\b"):
        build(compose_part("benchmark", "emer", [f"benchmark.root={root}", "benchmark.version=v3"]))
    (root / "final-EMER-reason.csv").write_text("name,chinese,english\na,b,c\na,b,c\n")
    (root / "video/a.mp4").touch()
    with pytest.raises(ValueError, match=r"'a' is duplicated .*:2 and .*:3"):
        Emer(str(root)).questions()


def test_yaml_has_the_default_options(root: Path) -> None:
    built, plain = build(compose_part("benchmark", "emer", [f"benchmark.root={root}"])), Emer(str(root))
    assert built.protocol() == plain.protocol() and built.annotations == plain.annotations
    assert built.max_new_tokens == plain.max_new_tokens
