"""The quality of a model, in a sentence for the page."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from omnihuman.serving.quality import describe_quality

METRICS = """step,val/loss,val/emotion/war,val/emotion/uar,val/gate/emotion/body,floor/emotion/war,train/loss
0,9.0,3.5,4.0,0.33,18.0,8.0
1,2.0,56.76,50.0,0.95,18.0,1.0
2,,,,,,1.0
"""


@pytest.fixture
def metrics() -> dict[str, Any]:
    """The content of ``metrics.json``, as far as it is read."""
    scores = {"war": {"value": 56.76}, "uar": {"value": None}, "war/fold 1": {"value": 1.0}}
    floors = [{"method": "always “happy”", "scores": {"war": 14.3, "uar": 14.2}}]
    return {"benchmark": "sample", "view": "VA", "n": 224, "scores": scores, "floors": floors}


def write(folder: Path, view: str, metrics: dict[str, Any], time: int) -> None:
    file = folder / "evaluation" / "sample" / view / "metrics.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(metrics))
    os.utime(file, (time, time))


def test_the_newest_evaluation_is_named_with_its_questions_and_floors(tmp_path: Path, metrics: dict[str, Any]) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    write(tmp_path, "VA", metrics, time=2000)
    write(tmp_path, "A", metrics | {"n": 1}, time=1000)
    sentence = describe_quality(tmp_path)
    assert "WAR 56.8 on 224 questions of sample (VA); always “happy”: WAR 14.3, UAR 14.2." in sentence
    assert "fold" not in sentence


def test_without_an_evaluation_the_last_validation_is_named(tmp_path: Path, metrics: dict[str, Any]) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    write(tmp_path, "VA", metrics | {"scores": {"war": {"value": None}}}, time=1)
    sentence = describe_quality(tmp_path)
    assert (
        "emotion WAR 56.8, emotion UAR 50.0 in its last validation; the best constant answer: emotion WAR 18"
        in sentence
    )
    assert "body" not in sentence and "loss" not in sentence


def test_a_model_without_scores_has_an_unknown_quality(tmp_path: Path) -> None:
    assert "unknown" in describe_quality(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1.0\n")
    assert "unknown" in describe_quality(tmp_path)
