"""The content of ``metrics.json``: every score with its interval, counts, and how it was measured."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any, NamedTuple

import numpy as np

from omnihuman.benchmark.base import Prediction
from omnihuman.data.text_files import read_json
from omnihuman.evaluation.folder import UNANSWERED, Evaluation
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import interval

DATA_KEYS = ("missing media", "clips in training", "fold sizes", "audio files", "silent clips")
"""Keys of a protocol that depend on the benchmark's data: a report takes them from the manifest, not from the class."""


class Bootstrap(NamedTuple):
    """Options of the bootstrap intervals."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


BOOTSTRAP = Bootstrap()


def build_metrics(evaluation: Evaluation, scores: Sequence[Score], judge: Any, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the content of ``metrics.json``."""
    return {
        "benchmark": evaluation.benchmark.name,
        "run": evaluation.run,
        "size": evaluation.config.get("size"),
        "view": evaluation.view,
        "scores": {score.name: _describe_score(score, scores, bootstrap) for score in scores},
        **_count_predictions(evaluation),
        "incomplete_reason": evaluation.incomplete_reason,
        "support": _count_support(evaluation),
        "floors": compute_floors(evaluation, scores),
        "peak_memory_gb": _read_peak_memory(evaluation),
        "judge": None if judge is None else judge.id,
        "judge_is_offline": judge is not None and judge.offline,
        "interval": bootstrap._asdict(),
        "protocol": _merge_protocols(evaluation),
    }


def _count_predictions(evaluation: Evaluation) -> dict[str, Any]:
    """Return numbers of questions by kind, and the means over the questions that the model answered."""
    groups, rules = Counter[str](), Counter[str]()
    num_invalid, num_answered, num_without_audio = 0, 0, 0
    seconds, tokens = 0.0, 0
    for prediction, (value, rule) in zip(evaluation.predictions, evaluation.parsed, strict=True):
        groups[prediction.group] += 1
        rules[rule] += 1
        num_invalid += value is None and rule != UNANSWERED
        if prediction.error is None:
            num_answered += 1
            num_without_audio += "audio" in prediction.missing_slots
            seconds += prediction.seconds
            tokens += prediction.tokens[1]
    return {
        "n": len(evaluation.predictions),
        "n_invalid": num_invalid,
        "n_missing_media": len(evaluation.predictions) - num_answered,
        "n_missing_audio": num_without_audio,
        "groups": dict(groups),
        "rules": dict(rules),
        "seconds_per_sample": round_number(seconds / max(1, num_answered)),
        "tokens_per_answer": round_number(tokens / max(1, num_answered)),
    }


def compute_floors(evaluation: Evaluation, scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Return the scores of trivial baselines: the most frequent class or chance, and the benchmark's own."""
    benchmark, predictions = evaluation.benchmark, evaluation.predictions
    floors = []
    if benchmark.labels:
        label = Counter(evaluation.references).most_common(1)[0][0]
        constant = [_answer_always(prediction, label) for prediction in predictions]
        floors.append({"method": f"always “{label}”", "scores": _collect_values(benchmark.scores(constant))})
    elif all(prediction.options for prediction in predictions):
        chances = {prediction.id: 1 / len(prediction.options) for prediction in predictions}
        guesses = [_guess(score, chances) for score in scores]
        floors.append({"method": "chance", "scores": _collect_values(guesses)})
    if hasattr(benchmark, "floors"):
        for peer in benchmark.floors(predictions):
            floors.append({"method": peer.method, "scores": dict(peer.values)})
    return floors


def round_number(value: float) -> float | None:
    """Return a value for JSON: ``None`` for NaN, and no digits in which machines differ."""
    return round(float(value), 6) if math.isfinite(value) else None


def _answer_always(prediction: Prediction, label: str) -> Prediction:
    """Return the prediction with a fixed answer; log-probabilities of its options, if it has any, prefer it too."""
    log_probs = []
    if prediction.log_probs:
        for option in prediction.options:
            log_probs.append(0.0 if option == label else -99.0)
    return replace(prediction, answer=label, error=None, log_probs=tuple(log_probs))


def _guess(score: Score, chances: dict[str, float]) -> Score:
    """Return the score with the chance of a right guess in place of each question's result."""
    column = np.array([[chances[name]] for name in score.ids])
    return replace(score, numerators=score.denominators * column)


def _collect_values(scores: Sequence[Score]) -> dict[str, float | None]:
    return {score.name: round_number(score.value) for score in scores}


def _describe_score(score: Score, scores: Sequence[Score], bootstrap: Bootstrap) -> dict[str, Any]:
    low, high = math.nan, math.nan
    if math.isfinite(score.value):
        low, high = interval(score, *bootstrap)
    return {
        "value": round_number(score.value),
        "low": round_number(low),
        "high": round_number(high),
        "n": len(score.ids),
        "coverage": round(score.coverage, 6),
        "judged": score.num_questions is not None,
        "scale": score.scale,
        "higher_is_better": score.higher_is_better,
        "note": score.note,
        "group_std": _compute_group_std(score.name, scores),
    }


def _compute_group_std(name: str, scores: Sequence[Score]) -> float | None:
    """Return the standard deviation of a score over its groups, ``war/fold 1`` ...; ``None`` for fewer than two."""
    values = []
    for score in scores:
        if score.name.startswith(f"{name}/") and math.isfinite(score.value):
            values.append(score.value)
    return round_number(stdev(values)) if len(values) > 1 else None


def _count_support(evaluation: Evaluation) -> dict[str, int]:
    if not evaluation.benchmark.labels:
        return {}
    return dict(Counter(map(str, evaluation.references)))


def _read_peak_memory(evaluation: Evaluation) -> float | None:
    file = evaluation.folder / "environment.json"
    if not file.is_file():
        return None
    peak: float | None = read_json(file).get("peak_memory_gb")
    return peak


def _merge_protocols(evaluation: Evaluation) -> dict[str, str]:
    """Return the benchmark's protocol; what depends on its data, or was added to it, comes from the manifest."""
    protocol = evaluation.benchmark.protocol()
    merged = dict(protocol)
    for key, value in evaluation.manifest.get("protocol", {}).items():
        if key in DATA_KEYS or key not in protocol:
            merged[key] = value
    return merged
