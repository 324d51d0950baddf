"""Small benchmarks whose figures can be told by hand, and folders of their predictions."""

import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import omnihuman.benchmark
from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question
from omnihuman.metric.score import Score

LABELS = ("sad", "happy", "neutral")
TABLE = {  # (fold, truth, answer) -> how often
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
"""16 clips: 11 right, 1 invalid, 1 not asked."""


class Toy(Benchmark):
    """Three emotions in two folds."""

    name = "toy"
    labels = LABELS
    peers = (
        Peer("Old & Wise", {"war": 70.5, "uar": 68.25}, "V", "2 folds", "A, table 1"),
        Peer("New_Net", {"war": 66.0}, "VA", "one fold", "B, table 2"),
    )

    def __init__(self, root: str = "nowhere") -> None:
        self.root = root

    def questions(self) -> list[Question]:
        raise AssertionError("a report reads no data")

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return (asked.answer, "label") if asked.answer in self.labels else (None, "invalid")

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, classes = [p.id for p in predictions], [p.truth for p in predictions]
        right = [float(p.answer == p.truth) for p in predictions]
        return [Score.mean("war", ids, right, note="pooled"), Score.macro("uar", ids, right, classes)]

    def protocol(self) -> dict[str, str]:
        return {"folds": "2", "missing media": "raise"}


class Told(Benchmark):
    """Free text that a judge marks."""

    name = "told"
    peers = (Peer("Other", {"mark": 4.58}, "VA", "judge not stated", "C"),)

    def __init__(self, judge: Any = None) -> None:
        self.judge = judge

    def questions(self) -> list[Question]:
        raise AssertionError("a report reads no data")

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return asked.answer, "text"

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids = [p.id for p in predictions]
        lengths = Score.mean("length", ids, [len(str(p.answer)) for p in predictions], scale=1.0)
        if self.judge is None:
            return [lengths]
        marks = [self.judge(p.id) for p in predictions]
        kept = [(one, mark) for one, mark in zip(ids, marks, strict=True) if mark is not None]
        judged = Score.mean("mark", [k for k, _ in kept], [m for _, m in kept], scale=1.0, asked=len(ids))
        return [lengths, judged]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let configs build them."""
    module = types.ModuleType("omnihuman.benchmark.toy")
    for kind in (Toy, Told):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(omnihuman.benchmark, "toy", module, raising=False)
    yield


def predictions_of(table: dict[tuple[str, str, str | None], int] = TABLE) -> list[Prediction]:
    made: list[Prediction] = []
    for (fold, truth, answer), count in table.items():
        for _ in range(count):
            error = None if answer is not None else "the file is truncated"
            made.append(
                Prediction(
                    "toy", f"{len(made):05}", fold, "Which emotion?", truth, answer, LABELS, modality="VA", error=error,
                    lacking=("audio",) if len(made) == 2 else (), log_probs=(-0.1, -2.5, -4.0),
                    weights={"gate": {"face": 0.7, "body": 0.3}}, seconds=0.5, tokens=(20, 1),
                    media={"file": "clips/secret.mp4", "start": 0.0, "end": 2.5},
                )
            )  # fmt: skip
    return made


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write an evaluation's folder."""

    def write(
        folder: str = "runs/nano/net/evaluation/toy/VA", predictions: Sequence[Prediction] | None = None,
        media: int = 0, kind: str = "Toy", finished: bool = True, **config: Any,
    ) -> Path:  # fmt: skip
        made, root = list(predictions_of() if predictions is None else predictions), tmp_path / folder
        (root / "media").mkdir(parents=True)
        for number in range(media):
            Image.fromarray(np.full((24, 96, 3), 80 * number, np.uint8)).save(root / f"media/{number}.jpg")
            (root / f"media/{number}.wav").write_bytes(b"RIFF")
            card = {"frames": f"media/{number}.jpg", "sound": f"media/{number}.wav"}
            made[number] = replace(made[number], meta={"card": card})
        said = {"benchmark": {"_target_": f"omnihuman.benchmark.toy.{kind}"}, "run": "net", "size": "nano"}
        OmegaConf.save(OmegaConf.create({**said, "modality": "VA", "control": "", **config}), root / "config.yaml")
        (root / "predictions.jsonl").write_text("".join(f"{one.line()}\n" for one in made))
        ids = hashlib.sha256("\n".join(one.id for one in made).encode()).hexdigest()
        if finished:
            manifest = {"questions": len(made), "ids_sha256": ids, "protocol": {"missing media": "1 of 17 skipped"}}
            (root / "dataset_manifest.json").write_text(json.dumps(manifest))
        return root

    return write


@pytest.fixture
def sixteen() -> list[Prediction]:
    return predictions_of()
