"""What a run leaves behind for a person: a summary, a ledger, a picture of the curves."""

import csv
import json
import math
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def write_summary(folder: Path, facts: Mapping[str, Any], console: Console) -> None:
    """Write ``ledger.json`` and ``curves.png`` into a run's folder and print the summary.

    Args:
        folder: of the run; holds ``metrics.csv``.
        facts: what the trainer knows, by name; everything JSON can hold.
        console: to print on.
    """
    rows = read_metrics(folder / "metrics.csv")
    best = _best(rows)
    peak = peak_memory() / 2**30
    (folder / "ledger.json").write_text(json.dumps({**facts, "best": best, "peak_memory_gib": peak}, indent=2) + "\n")
    draw_curves(rows, folder / "curves.png", title=str(facts["experiment"]))

    skipped = facts["skipped"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "none"
    table = Table(title=f"{facts['experiment']} is finished", title_justify="left", show_header=False)
    table.add_row("steps", f"{facts['steps']} in {facts['seconds']:.0f} s")
    table.add_row(
        "samples",
        f"{facts['planned']} planned = {facts['trained']} trained + {sum(skipped.values())} skipped ({reasons})",
    )
    table.add_row(
        "speed", f"{facts['tokens_per_second']:.0f} tokens/s, {facts['data_wait']:.0%} of it waiting for data"
    )
    table.add_row("peak memory", f"{peak:.1f} GiB")
    table.add_row("best", ", ".join(f"{name} {value:.4g}" for name, value in best.items()) or "no validation")
    table.add_row("weights", str(folder / "weights.safetensors"))
    table.add_row("metrics", f"{folder / 'metrics.csv'}, {folder / 'curves.png'}, tensorboard --logdir {folder}")
    table.add_row("next", str(facts["next"]))
    console.print(table)


def peak_memory() -> int:
    """Bytes that the largest of this process and those it started has taken: of the GPU where there is one."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most if sys.platform == "darwin" else most * 1024


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``, without the empty fields."""
    with file.open(newline="") as lines:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]


def draw_curves(rows: list[dict[str, float]], file: Path, title: str) -> None:
    """Loss, validation metrics and fusion weights over the steps, one panel a kind."""
    from matplotlib.figure import Figure

    panels: dict[str, list[str]] = {"loss": []}
    for name in dict.fromkeys(name for row in rows for name in row):
        if name.endswith("/loss") or name.startswith("val/"):
            # val/emotion/war and /uar share a panel, so do the streams of val/gate/face/...
            panels.setdefault("loss" if name.endswith("/loss") else name.rpartition("/")[0], []).append(name)
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * lines), layout="constrained")
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    for axes, (kind, names) in zip(places, panels.items(), strict=False):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) < 20 else None
            axes.plot(steps, values, label=name.removeprefix(f"{kind}/"), linewidth=1, marker=marker, markersize=3)
        axes.set(title=kind, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


def _best(rows: list[dict[str, float]]) -> dict[str, float]:
    """The best of every validation metric: the lowest loss, the highest of what counts hits."""
    best: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("val/") and not name.startswith("val/gate") and math.isfinite(value):
                pick = min if name.endswith("loss") else max
                best[name] = pick(best.get(name, value), value)
    return best
