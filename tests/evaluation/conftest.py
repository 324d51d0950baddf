"""Small benchmarks with scores that can be computed by hand, and folders of their predictions."""

import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import omnihuman.benchmark
from omnihuman.benchmark.base import Benchmark, Prediction, PublishedResult, Question
from omnihuman.metric.score import Score

LABELS = ("sad", "happy", "neutral")
COUNTS: Mapping[tuple[str, str, str | None], int] = {
    ("fold 1", "sad", "sad"): 3,
    ("fold 1", "sad", "happy"): 1,
    ("fold 1", "happy", "happy"): 2,
    ("fold 1", "happy", "<script>alert(1)</script>"): 1,
    ("fold 1", "neutral", "sad"): 1,
    ("fold 2", "sad", "sad"): 2,
    ("fold 2", "happy", "neutral"): 1,
    ("fold 2", "neutral", "neutral"): 4,
    ("fold 2", "neutral", None): 1,
}
"""(fold, reference, answer) -> number of predictions: 16 clips, 11 right, 1 invalid, 1 unanswered."""


class Toy(Benchmark):
    """Three emotions in two folds."""

    name = "toy"
    labels = LABELS
    published = (
        PublishedResult("Old & Wise", {"war": 70.5, "uar": 68.25}, "V", "2 folds", "A, table 1"),
        PublishedResult("New_Net", {"war": 66.0}, "VA", "one fold", "B, table 2"),
    )

    def __init__(self, root: str = "nowhere") -> None:
        self.root = root

    def questions(self) -> list[Question]:
        raise AssertionError("a report reads no data")

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        if prediction.answer in self.labels:
            return prediction.answer, "label"
        return None, "invalid"

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, classes, correct = [], [], []
        for prediction in predictions:
            ids.append(prediction.id)
            classes.append(prediction.reference)
            correct.append(float(prediction.answer == prediction.reference))
        return [Score.mean("war", ids, correct, note="pooled"), Score.macro("uar", ids, correct, classes)]

    def protocol(self) -> dict[str, str]:
        return {"folds": "2", "missing media": "raise"}


class FreeText(Benchmark):
    """Free text that a judge marks."""

    name = "free_text"
    published = (PublishedResult("Other", {"mark": 4.58}, "VA", "judge not stated", "C"),)

    def __init__(self, judge: Any = None) -> None:
        self.judge = judge

    def questions(self) -> list[Question]:
        raise AssertionError("a report reads no data")

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return prediction.answer, "text"

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids = [prediction.id for prediction in predictions]
        lengths = [len(str(prediction.answer)) for prediction in predictions]
        scores = [Score.mean("length", ids, lengths, scale=1.0)]
        if self.judge is not None:
            marks = {name: self.judge(name) for name in ids}
            marks = {name: mark for name, mark in marks.items() if mark is not None}
            scores.append(Score.mean("mark", list(marks), list(marks.values()), scale=1.0, num_questions=len(ids)))
        return scores


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let configs build the benchmarks above."""
    module = types.ModuleType("omnihuman.benchmark.toy")
    for benchmark in (Toy, FreeText):
        monkeypatch.setattr(benchmark, "__module__", module.__name__)
        setattr(module, benchmark.__name__, benchmark)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(omnihuman.benchmark, "toy", module, raising=False)
    yield


@pytest.fixture
def sixteen() -> list[Prediction]:
    """The predictions that ``COUNTS`` lists."""
    predictions: list[Prediction] = []
    for (fold, reference, answer), count in COUNTS.items():
        for _ in range(count):
            predictions.append(build_prediction(len(predictions), fold, reference, answer))
    return predictions


def build_prediction(number: int, fold: str, reference: str, answer: str | None) -> Prediction:
    prediction = Prediction(
        "toy",
        f"{number:05}",
        fold,
        "Which emotion?",
        reference,
        answer,
        LABELS,
        view="VA",
        log_probs=(-0.1, -2.5, -4.0),
        weights={"gate": {"face": 0.7, "body": 0.3}},
        seconds=0.5,
        tokens=(20, 1),
        media={"file": "clips/secret.mp4", "start": 0.0, "end": 2.5},
    )
    if answer is None:
        prediction = replace(prediction, error="the file is truncated")
    if number == 2:
        prediction = replace(prediction, missing_slots=("audio",))
    return prediction


Write = Callable[..., Path]


@pytest.fixture
def write_evaluation(tmp_path: Path, sixteen: list[Prediction]) -> Write:
    """A function that writes the folder of an evaluation, in which the first ``num_media`` answers have media."""

    def write(
        folder: str = "runs/nano/net/evaluation/toy/VA",
        predictions: Sequence[Prediction] = sixteen,
        num_media: int = 0,
        benchmark: str = "Toy",
        has_manifest: bool = True,
        **config: Any,
    ) -> Path:
        root, predictions = tmp_path / folder, list(predictions)
        (root / "media").mkdir(parents=True)
        for number in range(num_media):
            card = write_media(root, number)
            predictions[number] = replace(predictions[number], meta={"card": card})
        defaults = {"run": "net", "size": "nano", "view": "VA", "control": ""}
        target = {"_target_": f"omnihuman.benchmark.toy.{benchmark}"}
        OmegaConf.save(OmegaConf.create({"benchmark": target, **defaults, **config}), root / "config.yaml")
        (root / "predictions.jsonl").write_text("".join(f"{prediction.to_json()}\n" for prediction in predictions))
        if has_manifest:
            ids = "\n".join(prediction.id for prediction in predictions)
            manifest = {
                "questions": len(predictions),
                "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
                "protocol": {"missing media": "1 of 17 skipped"},
            }
            (root / "dataset_manifest.json").write_text(json.dumps(manifest))
        return root

    return write


def write_media(root: Path, number: int) -> dict[str, str]:
    """Write a frame and a stub of a waveform; return their names by kind."""
    files = {"frames": f"media/{number}.jpg", "audio": f"media/{number}.wav"}
    Image.fromarray(np.full((24, 96, 3), 80 * number, np.uint8)).save(root / files["frames"])
    (root / files["audio"]).write_bytes(b"RIFF")
    return files
