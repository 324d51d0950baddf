"""From predictions to everything that is read: figures, tables, pictures and a page."""

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np

from omnihuman.benchmark.base import read_json
from omnihuman.evaluation import cards, pictures, tables
from omnihuman.evaluation.folder import NOT_ASKED, Evaluation, benchmark_of, open_evaluation
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import interval as interval_of

log = logging.getLogger(__name__)

KNOWN_WHEN_ASKED = ("missing media", "clips in training", "fold sizes", "sound files", "silent clips")
"""Of a protocol, what is only known to who read the benchmark's files; the manifest keeps that, and what was added."""
PUBLIC = "public"
"""Where what may be published lies, apart from frames and sound."""


def report_folder(
    folder: Path, judge: Any = None, *, baseline: Path | None = None, publish: bool = False, force: bool = False,
    most_cards: int | None = 1000, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """An evaluation's folder -> ``metrics.json``, tables, pictures and ``index.html`` in it, and the metrics.

    Nothing but predictions is read: no model, no data of the benchmark. The same predictions give the same bytes.

    Args:
        folder: of the evaluation, wherever it lies now.
        judge: of free text.
        baseline: folder of another evaluation of the benchmark, whose answers stand on the cards.
        publish: write to the folder ``public`` in it, with ids in the place of frames, sound and files.
        force: print judged figures that cover less than 98 % of the answers.
        most_cards: on the page; ``None`` for all.
        confidence: of the intervals.
        resamples: of the bootstrap behind them.
        seed: of the bootstrap.

    Raises:
        ValueError: the folder or the baseline does not hold; the message names file and line.
    """
    evaluation = open_evaluation(folder, judge)
    other = None if baseline is None else open_evaluation(baseline)
    if evaluation.unfinished:
        log.warning("%s: %s", folder, evaluation.unfinished)
    scores = evaluation.benchmark.scores(evaluation.predictions)
    report = metrics(evaluation, scores, judge, (confidence, resamples, seed))
    shown = cards.cards_of(evaluation, scores, other, publish, most_cards)
    out = folder / PUBLIC if publish else folder
    out.mkdir(exist_ok=True)
    _write_json(out / "metrics.json", report)
    if judge is not None:
        _write_json(folder / "judge.json", {"id": judge.id, **asdict(judge.ledger)})
    if not publish:
        _write_parsed(evaluation, out / "parsed.jsonl")
    table, every = tables.compare([report], evaluation.benchmark.peers, force), tables.figures(report, force)
    tables.write(table, out, more=[every])
    drawn = _draw(evaluation, out)
    name = "" if other is None else f"{other.run}, {other.modality}"
    cards.page(out / "index.html", evaluation, report, [table, every], shown, drawn, name)
    return report


def report_run(
    run: Path, folders: Sequence[Path], judge: Any = None, baseline: Path | None = None, **options: Any
) -> str:
    """All evaluations of a run: each by itself, each benchmark's modalities in one table, and one over all benchmarks.

    Args:
        run: folder of the run; tables go to its ``evaluation``.
        folders: of the evaluations, see ``folder.find``.
        judge: of free text, for the benchmarks that have a use for one.
        baseline: for the evaluations of its own benchmark.
        options: of ``report_folder``.

    Returns:
        The tables in Markdown.

    Raises:
        ValueError: a folder does not hold, or the baseline's benchmark was not asked.
    """
    made: dict[str, list[dict[str, Any]]] = {}
    said, force = [], bool(options.get("force"))
    benchmarks = {folder: benchmark_of(folder) for folder in folders}
    wanted = None if baseline is None else benchmark_of(baseline).name
    if wanted is not None and all(benchmark.name != wanted for benchmark in benchmarks.values()):
        raise ValueError(f"baseline: {baseline} answers {wanted}, which {run} was not asked; leave baseline= out.")
    for folder, benchmark in benchmarks.items():
        given = judge if hasattr(benchmark, "judge") else None
        beside = baseline if benchmark.name == wanted else None
        made.setdefault(benchmark.name, []).append(report_folder(folder, given, baseline=beside, **options))
    for name, reports in made.items():
        peers, folder = next((each.peers, place.parent) for place, each in benchmarks.items() if each.name == name)
        table = tables.compare(reports, peers, force)
        tables.write(table, folder)
        said.append(tables.markdown(table))
    if len(folders) > 1:
        table = tables.modalities([report for reports in made.values() for report in reports], force)
        tables.write(table, run / "evaluation", "modalities")
        said.append(tables.markdown(table))
    return "\n".join(said)


def metrics(
    evaluation: Evaluation, scores: Sequence[Score], judge: Any, interval: tuple[float, int, int]
) -> dict[str, Any]:
    """What ``metrics.json`` holds: every figure with its interval, what was lost, and how it was measured."""
    config, benchmark, predictions = evaluation.config, evaluation.benchmark, evaluation.predictions
    asked = [prediction for prediction in predictions if prediction.error is None]
    found = {}
    for score in scores:
        low, high = interval_of(score, *interval) if math.isfinite(score.value) else (math.nan, math.nan)
        found[score.name] = {
            "value": _number(score.value),
            "low": _number(low),
            "high": _number(high),
            "n": len(score.ids),
            "coverage": round(score.coverage, 6),
            "judged": score.asked is not None,
            "scale": score.scale,
            "higher_is_better": score.higher_is_better,
            "note": score.note,
            "group_std": _spread(score.name, scores),
        }
    file = evaluation.folder / "environment.json"
    environment = read_json(file) if file.is_file() else {}
    protocol = benchmark.protocol()
    kept = {
        key: said
        for key, said in evaluation.manifest.get("protocol", {}).items()
        if key in KNOWN_WHEN_ASKED or key not in protocol
    }
    return {
        "benchmark": benchmark.name,
        "run": evaluation.run,
        "size": config.get("size"),
        "modality": evaluation.modality,
        "scores": found,
        "n": len(predictions),
        "n_invalid": sum(parsed is None and rule != NOT_ASKED for parsed, rule in evaluation.parsed),
        "n_missing_media": len(predictions) - len(asked),
        "n_missing_audio": sum("audio" in prediction.lacking for prediction in asked),
        "unfinished": evaluation.unfinished,
        "groups": {group: len(places) for group, places in evaluation.groups.items()},
        "support": dict(Counter(str(truth) for truth in evaluation.truths)) if benchmark.labels else {},
        "rules": dict(Counter(rule for _, rule in evaluation.parsed)),
        "floors": floors(evaluation, scores),
        "seconds_per_sample": _number(sum(each.seconds for each in asked) / max(1, len(asked))),
        "peak_memory_gb": environment.get("peak_memory_gb"),
        "tokens_per_answer": _number(sum(each.tokens[1] for each in asked) / max(1, len(asked))),
        "judge": None if judge is None else judge.id,
        "judge_is_offline": judge is not None and judge.offline,
        "interval": dict(zip(("confidence", "resamples", "seed"), interval, strict=True)),
        "protocol": {**protocol, **kept},
    }  # fmt: skip


def floors(evaluation: Evaluation, scores: Sequence[Score]) -> list[dict[str, Any]]:
    """What answers that look at nothing would get, by the benchmark's own scores: the commonest class, or chance."""
    benchmark, predictions, found = evaluation.benchmark, evaluation.predictions, []
    if benchmark.labels:
        commonest = Counter(evaluation.truths).most_common(1)[0][0]
        same = [
            replace(
                p,
                answer=commonest,
                error=None,
                log_probs=tuple(0.0 if option == commonest else -99.0 for option in p.options if p.log_probs),
            )
            for p in predictions
        ]
        values = {score.name: _number(score.value) for score in benchmark.scores(same)}
        found.append({"method": f"always “{commonest}”", "scores": values})
    elif all(prediction.options for prediction in predictions):
        share = {prediction.id: 1 / len(prediction.options) for prediction in predictions}
        drawn = {
            score.name: replace(score, numerators=score.denominators * np.array([[share[name]] for name in score.ids]))
            for score in scores
        }
        found.append({"method": "chance", "scores": {name: _number(score.value) for name, score in drawn.items()}})
    own = getattr(benchmark, "floors", None)
    if own is not None:
        found += [{"method": peer.method, "scores": dict(peer.values)} for peer in own(predictions)]
    return found


def _spread(name: str, scores: Sequence[Score]) -> float | None:
    """The standard deviation of a figure over folds or other groups, where it has one for each: ``war/fold 1`` ..."""
    values = [score.value for score in scores if score.name.startswith(f"{name}/") and math.isfinite(score.value)]
    return _number(stdev(values)) if len(values) > 1 else None


def _draw(evaluation: Evaluation, out: Path) -> list[tuple[str, str]]:
    """Confusion matrices as pictures and CSV; their titles and files."""
    for old in [*out.glob("confusion_*.png"), *out.glob("confusion_*.csv")]:
        old.unlink()
    matrices, labels, drawn = pictures.confusions(evaluation), evaluation.benchmark.labels, []
    for group, counts in matrices.items():
        name = pictures.file_of(group)
        title = f"{evaluation.benchmark.name}, {group}: {evaluation.run}, {evaluation.modality}"
        pictures.write_confusion(counts, labels, out / f"{name}.csv")
        pictures.draw_confusion(counts, labels, title, out / f"{name}.png")
        drawn.append((group, f"{name}.png"))
    if matrices:
        pictures.write_classes(matrices, labels, out / "per_class.csv")
    return drawn[-1:] + drawn[:-1]  # pooled first


def _write_parsed(evaluation: Evaluation, file: Path) -> None:
    every = zip(evaluation.predictions, evaluation.truths, evaluation.parsed, evaluation.right, strict=True)
    lines = [
        {
            "id": p.id,
            "group": p.group,
            "truth": truth,
            "answer": p.answer,
            "parsed": parsed,
            "rule": rule,
            "right": right,
        }
        for p, truth, (parsed, rule), right in every
    ]
    plain = [json.dumps(line, ensure_ascii=False, default=_as_list) for line in lines]
    file.write_text("".join(f"{line}\n" for line in plain), encoding="utf-8")


def _as_list(value: Any) -> list[Any]:
    return sorted(value) if isinstance(value, set | frozenset) else list(value)


def _write_json(file: Path, what: Any) -> None:
    file.write_text(json.dumps(what, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float) -> float | None:
    """For JSON, which has no NaN; digits beyond what any table prints differ between machines."""
    return round(float(value), 6) if math.isfinite(value) else None
