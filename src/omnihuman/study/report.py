"""A study's table: ours beside the paper's, what differs and by how much, and what cannot be told at this size."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.evaluation import tables
from omnihuman.evaluation.folder import benchmark_of, read_predictions
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import Comparison, difference, holm, interval, verdict
from omnihuman.study.cell import Outcome, folder_of, read_outcome
from omnihuman.study.config import cells_of, folder_named
from omnihuman.study.drawing import Cell, digits_of, draw, table_of

UNFINISHED = {
    "failed": "**failed**",
    "running": "**killed, or still running**; the same command goes on",
    "halved": "left behind by successive halving",
}

INTRODUCTION = """# The papers in miniature

`make reproduce` writes this page. It asks the `nano` size what the three papers claim: real training on real video and
sound, but small models, drawn people and four frames a clip. One training seed a cell; differences are paired over the
held-out questions, with 95 % bootstrap intervals and p-values corrected by Holm within a study. A claim that is not
shown here may well hold at the papers' size; one that is contradicted is worth a look.
"""


@dataclass(frozen=True)
class Claim:
    """What a paper says of its table, and whether ours shows it.

    Attributes:
        text: in words.
        score: the key that decides.
        verdict: ``shown``, ``not shown``, ``contradicted`` or ``not run``.
        comparison: the better cell less the worse.
        p: after Holm over the study's claims.
    """

    text: str
    score: str
    verdict: str
    comparison: Comparison | None = None
    p: float = math.nan


def report_study(config: DictConfig, publish: bool = False) -> bool:
    """Write ``table.{md,tex,csv}``, ``chart.png`` and ``claims.json`` of a study; whether nothing in it failed.

    Args:
        config: of the study.
        publish: also write ``TABLE.md`` and ``chart.png`` beside the study's ``sweep.yaml``.
    """
    folder = folder_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    cells = read_cells(config)
    claims = claims_of(config, cells)
    columns = {str(key): str(label) for key, label in config.scores.items()}
    paper: Any = OmegaConf.to_container(config.paper, resolve=True)
    table = table_of(config.title, list(cells.values()), columns, paper)
    tables.write(table, folder)
    text = tables.markdown(table) + "\n" + "".join(f"- {line}\n" for line in words_of(config, cells, claims))
    (folder / "table.md").write_text(text, encoding="utf-8")
    plain = [asdict(claim) for claim in claims]
    (folder / "claims.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    draw(folder / "chart.png", config.title, list(cells.values()), columns)
    if publish:
        own = folder_named(config.study)
        (own / "TABLE.md").write_text(f"{text}\n![chart](chart.png)\n", encoding="utf-8")
        (own / "chart.png").write_bytes((folder / "chart.png").read_bytes())
    print(text)
    print(f"written to {folder}")
    return all(cell.done for cell in cells.values())


def write_results(configs: Sequence[DictConfig], file: Path) -> None:
    """All studies' claims in one Markdown file: what the papers say, and whether ours shows it."""
    lines = [
        INTRODUCTION,
        "| study | claim | measure | difference | p | n | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    missing = []
    for config in configs:
        cells = read_cells(config)
        missing += [f"{config.study}: {cell.label}" for cell in cells.values() if not cell.done]
        for said, claim in zip(config.claims, claims_of(config, cells), strict=True):
            c, what = claim.comparison, config.scores.get(claim.score, claim.score)
            figures = "– | – | –"
            if c is not None:
                d = digits_of(cells[said.better].scores[said.score])
                figures = f"{c.delta:+.{d}f} [{c.low:+.{d}f}, {c.high:+.{d}f}] | {claim.p:.2g} | {c.n}"
            place = f"[{config.study}]({config.study}/TABLE.md)"
            lines.append(f"| {place} | {claim.text} | {what} | {figures} | **{claim.verdict}** |")
    lines += ["", f"Cells that are not finished: {'; '.join(missing)}." if missing else "All cells are finished.", ""]
    file.write_text("\n".join(lines), encoding="utf-8")
    print(f"written to {file}")


def read_cells(config: DictConfig) -> dict[str, Cell]:
    """Every cell of a study with its scores, from its predictions alone."""
    folder, cells = folder_of(config), {}
    paper: Any = OmegaConf.to_container(config.paper, resolve=True)
    for name, said in cells_of(config).items():
        outcome = _outcome(config, folder, name)
        cell = Cell(name, str(said.get("label", name)), outcome, paper=tuple(paper["rows"].get(name, ())))
        if outcome is not None and outcome.status == "finished":
            cell.scores = scores_in(outcome.evaluations, list(config.scores))
            cell.intervals = {key: interval(score) for key, score in cell.scores.items()}
        cells[name] = cell
    return cells


def _outcome(config: DictConfig, folder: Path, name: str) -> Outcome | None:
    """The outcome of a cell, or the rung of successive halving at which it was left behind."""
    outcome = read_outcome(folder, name)
    for steps in config.halving.steps if outcome is None and config.halving else ():
        outcome = read_outcome(folder, f"{name}@{steps}") or outcome
    return outcome


def scores_in(evaluations: Mapping[str, str], keys: Sequence[str]) -> dict[str, Score]:
    """The scores of a cell by ``<evaluate>/<score>``.

    Raises:
        ValueError: an evaluation has no score of that name.
    """
    found: dict[str, Score] = {}
    for name, folder in evaluations.items():
        benchmark = benchmark_of(Path(folder))
        predictions = read_predictions(Path(folder) / "predictions.jsonl", benchmark.name)
        found |= {f"{name}/{score.name}": score for score in benchmark.scores(predictions)}
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"the study's scores name {missing}; its evaluations give {sorted(found)}.")
    return {key: found[key] for key in keys}


def compared(better: Cell, worse: Cell, key: str) -> Comparison | None:
    """One cell less another on the questions that both were asked, ``None`` where one has no such score."""
    if key not in better.scores or key not in worse.scores:
        return None
    return difference(better.scores[key], worse.scores[key], partial=True)


def claims_of(config: DictConfig, cells: Mapping[str, Cell]) -> list[Claim]:
    """The paper's claims, tested on our cells; p-values adjusted over all of them.

    Raises:
        ValueError: a claim names a cell that the study has not.
    """
    named = {str(said[side]) for said in config.claims for side in ("better", "worse")} | {str(config.reference)}
    if foreign := sorted(named - set(cells)):
        raise ValueError(f"the study {config.study} names cells {foreign}; it has {', '.join(cells)}.")
    found = [compared(cells[said.better], cells[said.worse], said.score) for said in config.claims]
    adjusted = iter(holm([each.p for each in found if each is not None]))
    claims = []
    for said, comparison in zip(config.claims, found, strict=True):
        if comparison is None:
            claims.append(Claim(said.text, said.score, "not run"))
            continue
        p = next(adjusted)
        right = (comparison.delta > 0) == cells[said.better].scores[said.score].higher_is_better
        shown = "not shown" if not p < 0.05 else "shown" if right else "contradicted"
        claims.append(Claim(said.text, said.score, shown, comparison, p))
    return claims


def words_of(config: DictConfig, cells: Mapping[str, Cell], claims: Sequence[Claim]) -> list[str]:
    """What can be said of the table, in sentences."""
    key, reference = str(next(iter(config.scores), "")), cells[config.reference]
    others = {name: compared(cell, reference, key) for name, cell in cells.items() if cell is not reference}
    there = {name: each for name, each in others.items() if each is not None}
    adjusted = dict(zip(there, holm([each.p for each in there.values()]), strict=True))
    lines = [
        f"{config.scores[key]}, {cells[name].label} less {reference.label}: {verdict(each, adjusted[name])}"
        for name, each in there.items()
    ]
    for claim in claims:
        figures = "" if claim.comparison is None else f": {verdict(claim.comparison, claim.p)}"
        lines.append(
            f"Claim “{claim.text}” ({config.scores.get(claim.score, claim.score)}): **{claim.verdict}**{figures}"
        )
    if len({cell.outcome.order for cell in cells.values() if cell.outcome and cell.outcome.order}) > 1:
        lines.append("Not all cells saw the same samples in the same order: some lack a modality that others train on.")
    for cell in cells.values():
        status = "not run yet" if cell.outcome is None else UNFINISHED.get(cell.outcome.status)
        if status:
            error = cell.outcome.error.splitlines()[:1] if cell.outcome else []
            lines.append(f"{cell.label}: {' – '.join([status, *error])}")
    if config.paper.note:
        lines.append(f"The paper's figures ({config.paper.source}): {config.paper.note}.")
    return lines
