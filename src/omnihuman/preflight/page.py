"""The report as one HTML file, which loads nothing."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omnihuman.preflight.pictures import Card
from omnihuman.preflight.summary import Report

MAX_LISTED = 20
"""Samples or groups of one kind on the page; ``report.json`` has all."""

KINDS = {
    "ids": "one id in a split",
    "records": "same question about the same clip",
    "files": "same file, or same bytes",
    "clips": "same frames, or same audio without frames",
    "people": "same person",
}
"""Kind of a group -> its heading."""


def write_page(file: Path, report: Report, cards: Sequence[Card]) -> None:
    """Write the page.

    Args:
        file: of the page.
        report: its numbers.
        cards: records with their pictures.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("omnihuman.preflight") / "page.html.j2").read_text(encoding="utf-8"))
    html = template.render(
        report=report,
        cards=cards,
        bad=sorted(report.bad.items(), key=lambda entry: -len(entry[1])),
        tasks=list_tasks(report),
        kinds=KINDS,
        max_listed=MAX_LISTED,
    )
    file.write_text(html, encoding="utf-8")


def list_tasks(report: Report) -> list[tuple[str, list[tuple[str, Mapping[str, Any]]]]]:
    """Return each task with its labels in every split."""
    tasks: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for split, counts in report.splits.items():
        for task, labels in counts["labels"].items():
            tasks.setdefault(task, []).append((split, labels))
    return sorted(tasks.items())
