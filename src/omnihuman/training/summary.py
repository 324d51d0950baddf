"""Summary of a finished run: a printed table, a ledger, a chart of the curves."""

import csv
import json
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from omnihuman.training.curves import draw_curves


def write_summary(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``ledger.json`` and ``curves.png`` into the folder of a run, and return the content of the ledger.

    Args:
        folder: of the run, with its ``metrics.csv``.
        facts: values of the ledger by name, in types of JSON.
    """
    rows = read_metrics(folder / "metrics.csv")
    ledger = {**facts, "best": _best_values(rows), "peak_memory_gib": peak_memory() / 2**30}
    (folder / "ledger.json").write_text(json.dumps(ledger, indent=2) + "\n")
    draw_curves(rows, folder / "curves.png", title=str(facts["experiment"]))
    return ledger


def print_summary(folder: Path, facts: Mapping[str, Any], console: Console) -> None:
    """Print what the ledger of a run says, with the paths of its folder."""
    skipped = facts["skipped"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    samples = (
        f"{facts['planned']} planned = {facts['trained']} trained + {sum(skipped.values())} skipped "
        f"({reasons or 'none'})"
    )
    if facts["answer_cut"]:
        samples += f"; {facts['answer_cut']} answers cut at data.max_length"
    if facts["val_skipped"]:
        samples += f"; {sum(facts['val_skipped'].values())} skipped in validation"
    scores = ", ".join(f"{name} {value:.4g}" for name, value in facts["best"].items())
    gaps = facts["audio_gaps"]
    table = Table(title=f"{facts['experiment']} is finished", title_justify="left", show_header=False)
    table.add_row("steps", f"{facts['steps']} in {facts['seconds']:.0f} s")
    table.add_row("samples", samples)
    if gaps["samples"]:
        text = f"{gaps['gaps']:.0f} in {gaps['samples']:.0f} samples, {gaps['seconds']:.1f} s, silent"
        table.add_row("gaps of audio", text)
    table.add_row("speed", f"{facts['tokens_per_second']:.0f} tokens/s, {facts['data_wait']:.0%} waiting for data")
    table.add_row("peak memory", f"{facts['peak_memory_gib']:.1f} GiB")
    table.add_row("best", scores or "no validation")
    table.add_row("weights", str(folder / "weights.safetensors"))
    table.add_row("metrics", f"{folder / 'metrics.csv'}, {folder / 'curves.png'}")
    table.add_row("next", str(facts["next"]))
    console.print(table)


def peak_memory() -> int:
    """Return the peak memory in bytes of this process or its largest child: of the GPU if there is one."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(peaks) * unit


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Return the rows of a ``metrics.csv`` without empty fields."""
    rows = []
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            rows.append({name: float(value) for name, value in row.items() if value})
    return rows


def _best_values(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the best value of every validation metric: the lowest loss, the highest score."""
    best: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            is_score = name.startswith("val/") and not name.startswith("val/gate")
            if is_score and math.isfinite(value):
                choose = min if name.endswith("loss") else max
                best[name] = choose(best.get(name, value), value)
    return best
