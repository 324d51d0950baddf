"""Reports from predictions alone: metrics, tables, charts and a page."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnihuman.evaluation import confusion
from omnihuman.evaluation.cards import build_cards, write_page
from omnihuman.evaluation.comparison import compare_reports, compare_views, list_scores
from omnihuman.evaluation.folder import Evaluation, load_benchmark, load_evaluation
from omnihuman.evaluation.metrics import BOOTSTRAP, Bootstrap, build_metrics
from omnihuman.evaluation.tables import format_markdown, write_table

log = logging.getLogger(__name__)

PUBLIC = "public"
"""Folder of a report that may be published: without frames and audio."""


def report_folder(
    folder: Path,
    judge: Any = None,
    *,
    baseline: Path | None = None,
    publish: bool = False,
    force: bool = False,
    max_cards: int | None = 1000,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> dict[str, Any]:
    """Write ``metrics.json``, tables, charts and ``index.html`` into an evaluation's folder; return the metrics.

    It reads only the folder: no model, no data of the benchmark. The same predictions give the same bytes.

    Args:
        folder: of the evaluation, wherever it was copied to.
        judge: of free text.
        baseline: folder of another evaluation of the benchmark, whose answers are shown on the cards.
        publish: write to the folder ``public`` in it, with ids instead of frames, audio and files.
        force: print judged scores that cover less than 98 % of the answers.
        max_cards: on the page; ``None`` for all.
        bootstrap: of the intervals.

    Raises:
        ValueError: the folder or the baseline is invalid; the message names file and line.
    """
    evaluation = load_evaluation(folder, judge)
    other, other_name = None, ""
    if baseline is not None:
        other = load_evaluation(baseline)
        other_name = f"{other.run}, {other.view}"
    if evaluation.incomplete_reason:
        log.warning("%s: %s", folder, evaluation.incomplete_reason)
    scores = evaluation.benchmark.scores(evaluation.predictions)
    report = build_metrics(evaluation, scores, judge, bootstrap)
    cards = build_cards(evaluation, scores, other, publish, max_cards)
    out = folder
    if publish:
        out = folder / PUBLIC
        out.mkdir(exist_ok=True)
    else:
        _write_parsed(evaluation, out / "parsed.jsonl")
    _write_json(out / "metrics.json", report)
    if judge is not None:
        _write_json(folder / "judge.json", {"id": judge.id, **asdict(judge.ledger)})
    tables = [compare_reports([report], evaluation.benchmark.published, force), list_scores(report, force)]
    write_table(tables[0], out, appendix=tables[1:])
    charts = _draw_confusions(evaluation, out)
    write_page(out / "index.html", evaluation, report, tables, cards, charts, other_name)
    return report


def report_run(
    run: Path, folders: Sequence[Path], judge: Any = None, baseline: Path | None = None, **options: Any
) -> str:
    """Report all evaluations of a run, compare the views of each benchmark, and compare all benchmarks.

    Args:
        run: folder of the run; tables go to its ``evaluation``.
        folders: of the evaluations, see ``folder.find_evaluations``.
        judge: of free text, for the benchmarks that take one.
        baseline: for the evaluations of its own benchmark.
        options: of ``report_folder``.

    Returns:
        The tables in Markdown.

    Raises:
        ValueError: a folder is invalid, or the run has no evaluation of the baseline's benchmark.
    """
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        groups.setdefault(load_benchmark(folder).name, []).append(folder)
    baseline_benchmark = None
    if baseline is not None:
        baseline_benchmark = load_benchmark(baseline).name
        if baseline_benchmark not in groups:
            raise ValueError(
                f"baseline: {baseline} is an evaluation of {baseline_benchmark}; "
                f"expected one of {', '.join(groups)}, which {run} has."
            )
    force = bool(options.get("force"))
    tables, reports = [], []
    for name, group in groups.items():
        benchmark = load_benchmark(group[0])
        extra = dict(options)
        if hasattr(benchmark, "judge"):
            extra["judge"] = judge
        if name == baseline_benchmark:
            extra["baseline"] = baseline
        group_reports = [report_folder(folder, **extra) for folder in group]
        table = compare_reports(group_reports, benchmark.published, force)
        write_table(table, group[0].parent)
        tables.append(table)
        reports += group_reports
    if len(folders) > 1:
        table = compare_views(reports, force)
        write_table(table, run / "evaluation", "views")
        tables.append(table)
    return "\n".join(map(format_markdown, tables))


def _draw_confusions(evaluation: Evaluation, out: Path) -> list[tuple[str, str]]:
    """Write confusion matrices as charts and CSV; return their titles and files, the pooled one first."""
    for old in [*out.glob("confusion_*.png"), *out.glob("confusion_*.csv")]:
        old.unlink()
    matrices, labels = confusion.build_confusions(evaluation), evaluation.benchmark.labels
    charts = []
    for group, counts in matrices.items():
        name = confusion.build_file_name(group)
        title = f"{evaluation.benchmark.name}, {group}: {evaluation.run}, {evaluation.view}"
        confusion.write_confusion(counts, labels, out / f"{name}.csv")
        confusion.draw_confusion(counts, labels, title, out / f"{name}.png")
        charts.append((group, f"{name}.png"))
    if matrices:
        confusion.write_classes(matrices, labels, out / "per_class.csv")
    return charts[-1:] + charts[:-1]


def _write_parsed(evaluation: Evaluation, file: Path) -> None:
    answers = zip(evaluation.predictions, evaluation.references, evaluation.parsed, evaluation.correct, strict=True)
    with file.open("w", encoding="utf-8") as out:
        for prediction, reference, (value, rule), correct in answers:
            line = {
                "id": prediction.id,
                "group": prediction.group,
                "reference": reference,
                "answer": prediction.answer,
                "parsed": value,
                "rule": rule,
                "correct": correct,
            }
            out.write(json.dumps(line, ensure_ascii=False, default=_convert_to_list) + "\n")


def _convert_to_list(value: Any) -> list[Any]:
    return sorted(value) if isinstance(value, set | frozenset) else list(value)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
