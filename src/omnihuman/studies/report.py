"""The report of a study: its table beside the paper's, tests of differences and claims, and unfinished cells."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.evaluation.tables import format_csv, format_latex_float, format_markdown
from omnihuman.studies.chart import draw_chart
from omnihuman.studies.claims import Claim, check_claims, compare_cells, correct_p_values, describe_difference
from omnihuman.studies.config import find_baseline
from omnihuman.studies.outcome import locate_results
from omnihuman.studies.results import CellResult, read_results
from omnihuman.studies.table import build_table, without_costs

log = logging.getLogger(__name__)

STATUS_TEXTS = {
    "failed": "**failed**",
    "running": "**killed, or still running**; the same command resumes it",
    "halved": "dropped by successive halving",
}

INTRODUCTION = """# The papers in miniature

`make reproduce` writes this page: claims of the three papers, tested at the `nano` size. Training, video and audio are
real, but the models are small, the people are drawn, and a clip has four frames. A verdict rests on three training
seeds or more (`make reproduce SEEDS=3`): the same cell trained twice differs by points, which no number of questions
tells. With three seeds, differences have 95 % intervals of a hierarchical bootstrap over questions and seeds, and
p-values corrected by Holm within a study. With one seed, intervals are over the questions alone: a run, no verdict. A
claim that is not shown here may still be true at the papers' size; a contradicted claim deserves a closer look.
"""

FORMATS = ("markdown", "latex", "csv")


def report_study(
    config: DictConfig, publish: bool = False, output_format: str = "markdown"
) -> Mapping[str, CellResult]:
    """Write the tables, the charts and ``claims.json`` of a study; return its results by cell.

    The files are ``table.{md,tex,csv}`` and ``chart.{png,pdf,svg}`` in the results folder. The LaTeX table is that of a
    paper: without the costs.

    Args:
        config: of the study.
        publish: also write ``TABLE.md`` and ``chart.png`` beside the study's ``sweep.yaml``.
        output_format: of the printed table: ``markdown``, ``latex`` or ``csv``.
    """
    folder = locate_results(config)
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(config)
    claims = check_claims(config, results)
    columns = {str(key): str(label) for key, label in config.scores.items()}
    paper: Any = OmegaConf.to_container(config.paper, resolve=True)
    table = build_table(config.title, list(results.values()), columns, paper, str(config.parent_seeds))
    texts = {
        "md": format_markdown(table)
        + "\n"
        + "".join(f"- {line}\n" for line in describe_results(config, results, claims)),
        "tex": format_latex_float(without_costs(table), f"tab:{config.study}"),
        "csv": format_csv(table),
    }
    for suffix, text in texts.items():
        (folder / f"table.{suffix}").write_text(text, encoding="utf-8", newline="")
    (folder / "claims.json").write_text(
        json.dumps(list(map(asdict, claims)), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draw_chart(folder, config.title, list(results.values()), columns)
    if publish:
        study = Path(config.folder)
        (study / "TABLE.md").write_text(f"{texts['md']}\n![chart](chart.png)\n", encoding="utf-8")
        (study / "chart.png").write_bytes((folder / "chart.png").read_bytes())
    print(texts[{"markdown": "md", "latex": "tex"}.get(output_format, output_format)], end="")
    log.info("tables and charts: %s", folder)
    return results


def write_claims(configs: Sequence[DictConfig], file: Path) -> None:
    """Write the claims of all studies with their verdicts as one Markdown table."""
    lines = [
        INTRODUCTION,
        "| study | claim | measure | difference | seeds | p | n | verdict |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    incomplete = []
    for config in configs:
        results = read_results(config)
        incomplete += [f"{config.study}: {result.label}" for result in results.values() if not result.is_complete()]
        for definition, claim in zip(config.claims, check_claims(config, results), strict=True):
            measure = config.scores.get(claim.score, claim.score)
            study = f"[{config.study}]({config.study}/TABLE.md)"
            numbers = _format_difference(claim, results[definition.better])
            lines.append(f"| {study} | {claim.text} | {measure} | {numbers} | **{claim.verdict}** |")
    summary = "All cells are finished."
    if incomplete:
        summary = f"Unfinished cells: {'; '.join(incomplete)}."
    file.write_text("\n".join([*lines, "", summary, ""]), encoding="utf-8")
    log.info("claims: %s", file)


def _format_difference(claim: Claim, better: CellResult) -> str:
    """Return difference, seeds, p and n of a claim as cells of a Markdown table."""
    difference = claim.difference
    if difference is None:
        return "– | – | – | –"
    form = f"+.{better.choose_decimals(claim.score)}f"
    value, low, high = (format(number, form) for number in (difference.value, difference.low, difference.high))
    seeds = str(difference.num_seeds)
    if len(difference.values) > 1:
        seeds += f": {', '.join(format(number, form) for number in difference.values)}"
    p = f"{claim.p:.2g}" if difference.is_decided else "–"
    return f"{value} [{low}, {high}] | {seeds} | {p} | {difference.n}"


def describe_results(config: DictConfig, results: Mapping[str, CellResult], claims: Iterable[Claim]) -> list[str]:
    """Return the findings below a study's table as sentences."""
    lines = _describe_differences(config, results)
    for definition, claim in zip(config.claims, claims, strict=True):
        line = f"Claim “{claim.text}” ({config.scores.get(claim.score, claim.score)}): **{claim.verdict}**"
        if claim.difference is not None:
            decimals = results[definition.better].choose_decimals(claim.score)
            line += f": {describe_difference(claim.difference, claim.p, decimals)}"
        lines.append(f"{line}.")
    lines += _describe_incomplete(results)
    if config.paper.note:
        lines.append(f"The paper's numbers ({config.paper.source}): {config.paper.note}.")
    return lines


def _describe_differences(config: DictConfig, results: Mapping[str, CellResult]) -> list[str]:
    """Return a sentence per cell: its headline score minus that of the baseline."""
    key, baseline = str(next(iter(config.scores), "")), results[find_baseline(config)]
    labels, differences = [], []
    for result in results.values():
        difference = compare_cells(result, baseline, key)
        if difference is not None and result is not baseline:
            labels.append(result.label)
            differences.append(difference)
    lines = []
    for label, difference, p in zip(labels, differences, correct_p_values(differences), strict=True):
        text = describe_difference(difference, p, baseline.choose_decimals(key))
        lines.append(f"{config.scores[key]}, {label} minus {baseline.label}: {text}.")
    return lines


def _describe_incomplete(results: Mapping[str, CellResult]) -> list[str]:
    """Return a sentence per cell and seed that was not run, failed or was dropped, and one for other samples."""
    lines, orders = [], dict[int, set[str]]()
    for result in results.values():
        for seed, outcome in result.outcomes.items():
            label = result.label if len(result.outcomes) == 1 else f"{result.label}, seed {seed}"
            if outcome is None:
                lines.append(f"{label}: not run yet")
                continue
            if outcome.order_digest:
                orders.setdefault(seed, set()).add(outcome.order_digest)
            if outcome.status in STATUS_TEXTS:
                parts = [STATUS_TEXTS[outcome.status], *outcome.error.splitlines()[:1]]
                lines.append(f"{label}: {' – '.join(parts)}")
    if any(len(digests) > 1 for digests in orders.values()):
        note = "Not all cells train on the same samples in the same order: some lack a modality that others train on."
        lines.insert(0, note)
    return lines
