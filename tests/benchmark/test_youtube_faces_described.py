"""YouTube Faces from descriptions: a question per clip, and a second model with recorded replies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.youtube_faces_described import DESCRIBE, YouTubeFacesDescribed
from omnihuman.build import build, compose_part
from omnihuman.judge.replay import ReplayJudge

SPLITS = """1, 1, Ann_Lee/0, Ann_Lee/1, 1, 1
1, 2, Ann_Lee/0, Bob_Ray/2, 0, 0
2, 3, Bob_Ray/2, Bob_Ray/4, 1, 1
2, 4, Bob_Ray/4, Ann_Lee/1, 0, 0
"""
TEXTS = {"Ann_Lee/0": "a girl", "Bob_Ray/2": "a bald man", "Ann_Lee/1": "a young girl", "Bob_Ray/4": "a man"}


@pytest.fixture
def faces(tmp_path: Path, pictures: Callable[..., Path]) -> Path:
    for video in TEXTS:
        pictures(tmp_path / "frame_images_DB" / video, [f"{number}.jpg" for number in range(2)])
    (tmp_path / "splits.txt").write_text(SPLITS)
    return tmp_path


def build_judge(file: Path, replies: dict[tuple[str, str], bool | None]) -> ReplayJudge:
    lines = []
    for (first, second), is_same in replies.items():
        reply = None if is_same is None else {"reason": "recorded", "same": is_same}
        lines.append(
            json.dumps({"protocol": "same_person", "item": {"first": first, "second": second}, "reply": reply})
        )
    file.write_text("\n".join(lines))
    return ReplayJudge(file)


def test_every_clip_is_described_once(faces: Path) -> None:
    benchmark = build(compose_part("benchmark", "youtube_faces_described"), root=str(faces))
    questions = benchmark.questions()
    assert [question.id for question in questions] == ["Ann_Lee/0", "Ann_Lee/1", "Bob_Ray/2", "Bob_Ray/4"]
    assert questions[1].meta["pairs"] == [["1/1", "fold_1", True, 1], ["2/4", "fold_2", False, 1]]
    record = questions[2].record
    assert record.file == faces / "frame_images_DB/Bob_Ray/2" and record.second_clip is None
    assert record.messages[0][1] == f"<video>\n{DESCRIBE}" and questions[2].reference == "Bob_Ray"
    segments = YouTubeFacesDescribed(str(faces), pairs="favchat_like", segment=1).questions()
    assert len(segments) == 4 and segments[0].id.startswith("Ann_Lee/") and segments[0].id.endswith("/0-1")


def test_a_second_model_decides_from_the_descriptions(
    faces: Path, tmp_path: Path, answered: Callable[..., list[Prediction]]
) -> None:
    benchmark = YouTubeFacesDescribed(str(faces))
    questions = benchmark.questions()
    predictions = answered(questions, [TEXTS[question.id] for question in questions])
    assert [score.name for score in benchmark.scores(predictions)] == ["described"], "no judge, no accuracy"
    replies = {("a girl", "a young girl"): True, ("a girl", "a bald man"): False}
    replies |= {("a bald man", "a man"): False, ("a man", "a young girl"): False}
    benchmark.judge = build_judge(tmp_path / "replies.jsonl", replies)
    values = {score.name: score.value for score in benchmark.scores(predictions)}
    assert values == {"accuracy": 75.0, "accuracy/fold_1": 100.0, "accuracy/fold_2": 50.0, "described": 100.0}
    half = benchmark.scores(predictions[:2])  # limit=2: the pairs of which both clips are described
    assert half[0].ids == ("1/1",) and half[0].value == 100.0


def test_a_failed_judgement_is_missing_and_a_failed_description_is_wrong(
    faces: Path, tmp_path: Path, answered: Callable[..., list[Prediction]]
) -> None:
    benchmark = YouTubeFacesDescribed(str(faces))
    questions = benchmark.questions()
    answers = [None if question.id == "Bob_Ray/4" else TEXTS[question.id] for question in questions]
    replies: dict[Any, bool | None] = {("a girl", "a young girl"): None, ("a girl", "a bald man"): False}
    benchmark.judge = build_judge(tmp_path / "replies.jsonl", replies)
    scores = {score.name: score for score in benchmark.scores(answered(questions, answers))}
    assert (scores["accuracy"].value, scores["accuracy"].coverage) == (50.0, 0.75)
    assert (scores["accuracy/fold_1"].value, scores["accuracy/fold_1"].coverage) == (100.0, 0.5)
    assert (scores["accuracy/fold_2"].value, scores["described"].value) == (0.0, 75.0)
    assert benchmark.judge.ledger.num_items == 2, "a pair without a description is not sent"
