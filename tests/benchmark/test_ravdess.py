"""RAVDESS in its official layout: labels from the names of the files, R1-Omni's form, parser and scores."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.ravdess import RAVDESS
from omnihuman.build import build, compose_part
from omnihuman.evaluation.run import fill_benchmark
from omnihuman.inference.prompting import read_prompting

FILES = {
    "01-01-01-01-01-01-01": "neutral",
    "01-01-02-01-01-01-01": "calm",
    "01-01-06-02-02-02-01": "fear",
    "01-01-08-01-01-01-02": "surprise",
}
OTHERS = ("02-01-06-02-02-02-01", "01-02-06-02-02-02-01")
"""Without audio; sung."""


@pytest.fixture
def root(tmp_path: Path, clip: Path) -> Path:
    for name in (*FILES, *OTHERS):
        folder = tmp_path / f"Actor_{name[-2:]}"
        folder.mkdir(exist_ok=True)
        shutil.copy(clip, folder / f"{name}.mp4")
    return tmp_path


def build_benchmark(root: Path, **options: Any) -> RAVDESS:
    return RAVDESS(str(root), **{"actors": [1, 2], **options})


def test_labels_are_those_of_the_names(root: Path) -> None:
    questions = build_benchmark(root).questions()
    assert {question.id.rpartition("/")[2]: question.reference for question in questions} == FILES
    assert questions[0].record.file == root / "Actor_01/01-01-01-01-01-01-01.mp4"
    prompt = questions[0].record.messages[0][1]
    assert prompt.endswith("expressed?\nhappy ,surprise ,neutral ,calm ,angry ,disgust ,sad ,fear")
    assert set(questions[0].options) == set(RAVDESS.labels)
    sung = build_benchmark(root, channel="song", actors=[1]).questions()
    assert [question.reference for question in sung] == ["fear"]


def test_yaml_takes_the_form_of_r1_omni(root: Path) -> None:
    """The options that are null are those of the model's authors."""
    config = compose_part("benchmark", "ravdess")
    assert fill_benchmark(config.copy(), None) == config
    benchmark: RAVDESS = build(fill_benchmark(config, read_prompting("r1_omni")), root=str(root), actors=[1, 2])
    assert benchmark.questions()[0].record.messages[0][1] == (
        "<video>\n<audio>\nAs an emotional recognition expert; throughout the video, which emotion conveyed by the "
        "characters is the most obvious to you?"
    )
    answers = [
        "<think>He is calm.</think>\n<answer>Neutral.</answer>",
        "calm",
        "<think>fear",
        "I see <answer>joy</answer>",
    ]
    predictions = []
    for question, answer in zip(benchmark.questions(), answers, strict=True):
        predictions.append(Prediction("ravdess", question.id, question.group, "?", question.reference, answer))
    assert [benchmark.parse(prediction) for prediction in predictions] == [
        ("neutral", "label"),
        ("calm", "label"),
        (None, "cut"),
        (None, "invalid"),
    ]
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    assert scores == {"war": 50.0, "uar": 50.0}
    assert benchmark.protocol()["parser"] == "answer_tag" and benchmark.protocol()["actors"] == "1, 2"


def test_invalid_folders_raise(root: Path, clip: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder Actor_03 \(22 of 24"):
        build_benchmark(root, actors=None).questions()
    with pytest.raises(ValueError, match=r"nowhere: .*Actor_01"):
        build_benchmark(root / "nowhere").questions()
    with pytest.raises(ValueError, match=r"actors=\[25\]"):
        build_benchmark(root, actors=[25])
    shutil.copy(clip, root / "Actor_01/01-01-09-01-01-01-01.mp4")
    with pytest.raises(ValueError, match=r"01-01-09-01-01-01-01.mp4: .*seven numbers"):
        build_benchmark(root).questions()
