"""The data card of a pipeline: what became of its clips and why, and which models and prompts have made its records."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from omnihuman.curation.account import Entry, count
from omnihuman.curation.folder import read_state
from omnihuman.curation.pipeline import Level, Pipeline
from omnihuman.curation.store import write_whole
from omnihuman.operator.ask import Ask
from omnihuman.operator.write import FOLDER, REPORT
from omnihuman.source.glyphs import choose_fonts, make_drawable

CARD, PICTURE = "card.md", "card.png"
UNKNOWN = "not stated: name it by licence="
COLORS = {"live": "#2a6f97", "dropped": "#9fb8c8", "failed": "#c8553d"}


def write_card(pipeline: Pipeline, licence: str | None) -> None:
    """Write ``card.md`` and ``card.png`` into the folder of a pipeline whose partitions are all there.

    Args:
        pipeline: that has run.
        licence: of the media and their labels, as the card states it; ``None``: unknown.
    """
    entries = count(read_state(pipeline.out))
    text = "\n\n".join(
        [
            f"# Data of the pipeline {pipeline.name}",
            f"![Clips that are live, dropped and failed after each operator]({PICTURE})",
            _describe_source(pipeline, entries, licence),
            _list_ends(entries),
            *_describe_records(pipeline.out),
            *_describe_models(pipeline, entries),
        ]
    )
    write_whole(pipeline.out / CARD, (text + "\n").encode())
    draw_card(pipeline.out / PICTURE, f"{pipeline.name}: {entries[0].rows:,} clips", entries)


def is_finished(pipeline: Pipeline) -> bool:
    """Return true if all partitions of the last operator are there."""
    last = pipeline.levels[-1]
    return all(last.file(part).is_file() for part in range(pipeline.num_parts))


def _describe_source(pipeline: Pipeline, entries: Sequence[Entry], licence: str | None) -> str:
    planned, rows, written = entries[0].rows, entries[-1].rows, entries[-1].live
    more = f", of which operators made {rows:,} rows" if rows != planned else ""
    dropped = sum(entry.dropped.total() for entry in entries)
    failed = sum(entry.failed.total() for entry in entries)
    return (
        f"{planned:,} clips{more}: {written:,} are written, {dropped:,} dropped and {failed:,} failed.\n\n"
        f"Licence of the media and their labels: {licence or UNKNOWN}."
    )


def _list_ends(entries: Sequence[Entry]) -> str:
    lines = ["## Clips", "", "| operator | live | dropped | failed |", "|---|---|---|---|"]
    for entry in entries:
        lines.append(f"| {entry.name} | {entry.live:,} | {_join(entry.dropped)} | {_join(entry.failed)} |")
    return "\n".join(lines)


def _join(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.most_common()) or "0"


def _describe_records(out: Path) -> list[str]:
    """Return the section of the records, empty for a pipeline without."""
    reports = sorted(out.glob(f"{FOLDER}/**/{REPORT}"))
    if not reports:
        return []
    lines = ["## Records", "", "| folder | records | tasks of the training |", "|---|---|---|"]
    for file in reports:
        report: dict[str, Any] = json.loads(file.read_bytes())
        folder = file.parent.relative_to(out).as_posix()
        lines.append(f"| {folder} | {_join(Counter(report['records']))} | {_join(Counter(report['tasks']))} |")
    return ["\n".join(lines)]


def _describe_models(pipeline: Pipeline, entries: Sequence[Entry]) -> list[str]:
    """Return the section of the models and their prompts, empty for a pipeline that asks none."""
    asking = [level for level in pipeline.levels if isinstance(level.operator, Ask)]
    if not asking:
        return []
    by_name = {entry.name: entry for entry in entries}
    lines = ["## Models", ""]
    lines += ["What a model wrote may be used as its own licence permits.", ""]
    lines += ["| operator | protocol | rows by model | calls | tokens in, out | dollars |", "|---|---|---|---|---|---|"]
    prompts = []
    for level in asking:
        assert isinstance(level.operator, Ask)
        protocol, cost = level.operator.protocol, by_name[level.name].cost
        name = f"{protocol['name']} {protocol['version']}"
        tokens = f"{cost['tokens_in']:,.0f}, {cost['tokens_out']:,.0f}"
        models = _join(_count_models(pipeline, level))
        lines.append(f"| {level.name} | {name} | {models} | {cost['calls']:,.0f} | {tokens} | {cost['dollars']:,.2f} |")
        prompts.append(f"### {level.name}: {name}\n\n```text\n{protocol['system']}\n\n{protocol['user']}\n```")
    return ["\n".join(lines), "## Prompts", *prompts]


def _count_models(pipeline: Pipeline, level: Level) -> Counter[str]:
    assert isinstance(level.operator, Ask)
    counts = Counter[str]()
    for part in range(pipeline.num_parts):
        table = pq.read_table(level.file(part), columns=[f"{level.operator.name}_model"])
        for group in table.group_by(table.column_names).aggregate([([], "count_all")]).to_pylist():
            name = group[table.column_names[0]]
            if name is not None:
                counts[name] += group["count_all"]
    return counts


def draw_card(file: Path, title: str, entries: Sequence[Entry]) -> None:
    """Draw the clips after each operator: live ones, and those that it dropped and failed on, with the reasons.

    Args:
        file: a PNG.
        title: of the picture.
        entries: of the account.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    reasons = [_join(entry.dropped + entry.failed) if entry.dropped or entry.failed else "" for entry in entries]
    names = [make_drawable(entry.name).text for entry in entries]
    with rc_context(choose_fonts([title, *names, *reasons])):
        figure = Figure(figsize=(9, 1.0 + 0.21 * len(entries)), layout="constrained")
        axes = figure.subplots()
        heights = list(range(len(entries)))[::-1]
        left = [0] * len(entries)
        for key, color in COLORS.items():
            widths = [entry.live if key == "live" else sum(getattr(entry, key).values()) for entry in entries]
            axes.barh(heights, widths, left=left, color=color, label=key, height=0.7)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for height, end, entry, reason in zip(heights, left, entries, reasons, strict=True):
            label = f" {entry.live:,}" + (f"   ({reason})" if reason else "")
            axes.text(end, height, make_drawable(label).text, va="center", fontsize=8)
        axes.set_yticks(heights, names, fontsize=8)
        axes.set_ylim(-0.7, len(entries) - 0.3)
        axes.set_xlim(0, 1.4 * max(1, *left))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", fontsize=8)
        axes.set_title(make_drawable(title).text, fontsize=11)
        figure.savefig(file, dpi=110, metadata={"Software": None})
