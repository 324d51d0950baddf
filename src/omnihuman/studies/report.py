"""The report of a study: its table beside the paper's, tests of differences and claims, and unfinished cells."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.evaluation.tables import format_markdown, write_table
from omnihuman.metric.statistics import verdict
from omnihuman.studies.chart import draw_chart
from omnihuman.studies.claims import Claim, check_claims, compare_cells, correct_p_values
from omnihuman.studies.config import locate_study
from omnihuman.studies.outcome import locate_results
from omnihuman.studies.results import CellResult, choose_decimals, read_results
from omnihuman.studies.table import build_table

STATUS_TEXTS = {
    "failed": "**failed**",
    "running": "**killed, or still running**; the same command resumes it",
    "halved": "dropped by successive halving",
}

INTRODUCTION = """# The papers in miniature

`make reproduce` writes this page: claims of the three papers, tested at the `nano` size. Training, video and audio are
real, but the models are small, the people are drawn, and a clip has four frames. Each cell has one training seed;
differences are paired over the held-out questions, with 95 % bootstrap intervals and p-values corrected by Holm within
a study. A claim that is not shown here may still be true at the papers' size; a contradicted claim deserves a closer
look.
"""


def report_study(config: DictConfig, publish: bool = False) -> bool:
    """Write ``table.{md,tex,csv}``, ``chart.png`` and ``claims.json``; return whether all cells are complete.

    Args:
        config: of the study.
        publish: also write ``TABLE.md`` and ``chart.png`` beside the study's ``sweep.yaml``.
    """
    folder = locate_results(config)
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(config)
    claims = check_claims(config, results)
    columns = {str(key): str(label) for key, label in config.scores.items()}
    paper: Any = OmegaConf.to_container(config.paper, resolve=True)
    table = build_table(config.title, list(results.values()), columns, paper)
    write_table(table, folder)
    text = format_markdown(table) + "\n" + "".join(f"- {line}\n" for line in describe_results(config, results, claims))
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "claims.json").write_text(json.dumps(list(map(asdict, claims)), indent=2) + "\n", encoding="utf-8")
    draw_chart(folder / "chart.png", config.title, list(results.values()), columns)
    if publish:
        study = locate_study(config.study)
        (study / "TABLE.md").write_text(f"{text}\n![chart](chart.png)\n", encoding="utf-8")
        (study / "chart.png").write_bytes((folder / "chart.png").read_bytes())
    print(text)
    print(f"written to {folder}")
    return all(result.is_complete for result in results.values())


def write_claims(configs: Sequence[DictConfig], file: Path) -> None:
    """Write the claims of all studies with their verdicts as one Markdown table."""
    lines = [
        INTRODUCTION,
        "| study | claim | measure | difference | p | n | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    incomplete = []
    for config in configs:
        results = read_results(config)
        incomplete += [f"{config.study}: {result.label}" for result in results.values() if not result.is_complete]
        for definition, claim in zip(config.claims, check_claims(config, results), strict=True):
            measure = config.scores.get(claim.score, claim.score)
            study = f"[{config.study}]({config.study}/TABLE.md)"
            numbers = _format_comparison(claim, results[definition.better])
            lines.append(f"| {study} | {claim.text} | {measure} | {numbers} | **{claim.verdict}** |")
    summary = "All cells are finished."
    if incomplete:
        summary = f"Unfinished cells: {'; '.join(incomplete)}."
    file.write_text("\n".join([*lines, "", summary, ""]), encoding="utf-8")
    print(f"written to {file}")


def _format_comparison(claim: Claim, better: CellResult) -> str:
    """Return difference, p and n of a claim as cells of a Markdown table."""
    comparison = claim.comparison
    if comparison is None:
        return "– | – | –"
    form = f"+.{choose_decimals(better.scores[claim.score])}f"
    delta, low, high = (format(value, form) for value in (comparison.delta, comparison.low, comparison.high))
    return f"{delta} [{low}, {high}] | {claim.p:.2g} | {comparison.n}"


def describe_results(config: DictConfig, results: Mapping[str, CellResult], claims: Iterable[Claim]) -> list[str]:
    """Return the findings below a study's table as sentences."""
    lines = _describe_differences(config, results)
    for claim in claims:
        line = f"Claim “{claim.text}” ({config.scores.get(claim.score, claim.score)}): **{claim.verdict}**"
        if claim.comparison is not None:
            line += f": {verdict(claim.comparison, claim.p)}"
        lines.append(line)
    lines += _describe_incomplete(results)
    if config.paper.note:
        lines.append(f"The paper's numbers ({config.paper.source}): {config.paper.note}.")
    return lines


def _describe_differences(config: DictConfig, results: Mapping[str, CellResult]) -> list[str]:
    """Return a sentence per cell: its headline score minus that of the baseline."""
    key, baseline = str(next(iter(config.scores), "")), results[config.baseline]
    labels, comparisons = [], []
    for result in results.values():
        comparison = compare_cells(result, baseline, key)
        if comparison is not None and result is not baseline:
            labels.append(result.label)
            comparisons.append(comparison)
    lines = []
    for label, comparison, p in zip(labels, comparisons, correct_p_values(comparisons), strict=True):
        lines.append(f"{config.scores[key]}, {label} minus {baseline.label}: {verdict(comparison, p)}")
    return lines


def _describe_incomplete(results: Mapping[str, CellResult]) -> list[str]:
    """Return a sentence per cell that was not run, failed or was dropped, and one for different training samples."""
    lines, orders = [], set()
    for result in results.values():
        outcome = result.outcome
        if outcome is None:
            lines.append(f"{result.label}: not run yet")
            continue
        if outcome.order_digest:
            orders.add(outcome.order_digest)
        if outcome.status in STATUS_TEXTS:
            parts = [STATUS_TEXTS[outcome.status], *outcome.error.splitlines()[:1]]
            lines.append(f"{result.label}: {' – '.join(parts)}")
    if len(orders) > 1:
        note = "Not all cells train on the same samples in the same order: some lack a modality that others train on."
        lines.insert(0, note)
    return lines
