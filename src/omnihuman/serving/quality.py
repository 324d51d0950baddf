"""A sentence about the quality of a model, from the evaluations and validations in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnihuman.training.curves import FLOOR
from omnihuman.training.summary import read_metrics

MAX_SCORES = 3
"""Scores in the sentence."""

UNKNOWN = "This folder holds no score of the model, so its quality is unknown; omnihuman evaluate measures it."


def describe_quality(folder: Path) -> str:
    """Return what the newest evaluation of a model, or else its last validation, has measured.

    Args:
        folder: of the model.
    """
    reports = [path for path in folder.glob("evaluation/*/*/metrics.json") if path.is_file()]
    for report in sorted(reports, key=lambda path: path.stat().st_mtime, reverse=True):
        if sentence := _describe_evaluation(json.loads(report.read_text(encoding="utf-8"))):
            return sentence
    table = folder / "metrics.csv"
    sentence = _describe_validation(read_metrics(table)) if table.is_file() else ""
    return sentence or UNKNOWN


def _describe_evaluation(metrics: Mapping[str, Any]) -> str:
    """Return scores over all questions with those of the trivial answers; nothing where there is no score."""
    scores = {}
    for name, score in metrics["scores"].items():
        if "/" not in name:
            scores[name] = score["value"]
    sentence = _join_scores(scores)
    if not sentence:
        return ""
    parts = [f"How good it is: {sentence} on {metrics['n']} questions of {metrics['benchmark']} ({metrics['view']})"]
    for floor in metrics["floors"]:
        common = {name: floor["scores"].get(name) for name in scores}
        if values := _join_scores(common):
            parts.append(f"{floor['method']}: {values}")
    return "; ".join(parts) + "."


def _describe_validation(rows: list[dict[str, float]]) -> str:
    """Return the scores of the last validation with those of the best constant answer; nothing where there is none."""
    scored = [row for row in rows if any(map(_is_score, row))]
    if not scored:
        return ""
    scores, floors = {}, {}
    for name, value in scored[-1].items():
        if _is_score(name):
            scores[name.removeprefix("val/")] = value
        elif name.startswith(FLOOR):
            floors[name.removeprefix(FLOOR)] = value
    sentence = f"How good it is: {_join_scores(scores)} in its last validation"
    constant = _join_scores({name: floors.get(name) for name in scores})
    return f"{sentence}; the best constant answer: {constant}." if constant else f"{sentence}."


def _is_score(name: str) -> bool:
    """Return true for the score of a task: no loss, and no weight of a fusion (``val/<fusion>/<task>/<stream>``)."""
    return name.startswith("val/") and name.count("/") == 2


def _join_scores(scores: Mapping[str, float | None]) -> str:
    """Return the first scores with their names.

    >>> _join_scores({"war": 56.76, "uar": None, "emotion/uar": 50.0})
    'WAR 56.8, emotion UAR 50.0'
    """
    texts = []
    for name, value in scores.items():
        if value is not None:
            task, _, score = name.rpartition("/")
            texts.append(f"{task} {score.upper()} {value:.1f}".strip())
    return ", ".join(texts[:MAX_SCORES])
