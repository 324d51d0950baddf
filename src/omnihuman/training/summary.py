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
from omnihuman.training.selection import SCORED, is_better


def write_summary(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``ledger.json`` and ``curves.png`` into the folder of a run, and return the content of the ledger.

    Args:
        folder: of the run, with its ``metrics.csv``.
        facts: values of the ledger by name, in types of JSON.
    """
    rows = read_metrics(folder / "metrics.csv")
    validations = summarize_validations(rows)
    if facts["selected_by"] is not None:  # of equal scores, the validation loss has selected
        validations["best_step"][facts["selected_by"]] = facts["weights_of_step"]
    ledger = {**facts, **validations, "peak_memory_gib": peak_memory() / 2**30}
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
    gaps = facts["audio_gaps"]
    table = Table(title=f"{facts['experiment']} is finished", title_justify="left", show_header=False)
    table.add_row("steps", f"{facts['steps']} in {facts['seconds']:.0f} s")
    table.add_row("samples", samples)
    if gaps["samples"]:
        text = f"{gaps['gaps']:.0f} in {gaps['samples']:.0f} samples, {gaps['seconds']:.1f} s, silent"
        table.add_row("gaps of audio", text)
    table.add_row("speed", _describe_speed(facts))
    table.add_row("time", _describe_time(facts))
    table.add_row("peak memory", f"{facts['peak_memory_gib']:.1f} GiB")
    table.add_row("best", _describe_best(facts) or "no validation")
    table.add_row("last", _describe(facts["last"]) or "no validation")
    if facts["untrained"]:
        table.add_row("step 0 (untrained)", _describe(facts["untrained"]))
    table.add_row("weights", f"{folder / 'weights.safetensors'} of step {facts['weights_of_step']}")
    table.add_row("metrics", f"{folder / 'metrics.csv'}, {folder / 'curves.png'}")
    table.add_row("next", str(facts["next"]))
    console.print(table)


def _describe_speed(facts: Mapping[str, Any]) -> str:
    """Return tokens, clips and FLOPs a second, with the share of the device's peak where that is known."""
    mfu = facts["mfu"]
    text = f"{facts['tokens_per_second']:.0f} tokens/s, {facts['clips_per_second']:.1f} clips/s, "
    text += f"{facts['tflops_per_second']:.3g} TFLOP/s"
    if mfu["value"] is not None:
        text += f", MFU {mfu['value']:.1%} of {mfu['peak_tflops']:.0f} TFLOP/s ({mfu['device']}): {mfu['convention']}"
    return text


def _describe_time(facts: Mapping[str, Any]) -> str:
    """Return the shares of all seconds by their use, and how much of them the result consists of."""
    total = max(sum(facts["time"].values()), 1e-9)
    uses = [f"{seconds / total:.0%} {use.replace('_', ' ')}" for use, seconds in facts["time"].items()]
    processes = "" if facts["processes"] == 1 else f" over {facts['processes']} starts"
    return f"{', '.join(uses)}; goodput {facts['goodput']:.0%}{processes}"


def _describe(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())


def _describe_best(facts: Mapping[str, Any]) -> str:
    """Return the best values with their steps, the one that has selected the weights first."""
    texts: list[str] = []
    for name, value in facts["best"].items():
        text = f"{name} {value:.4g} at step {facts['best_step'][name]}"
        if name == facts["selected_by"]:
            texts.insert(0, f"{text} (selected)")
        else:
            texts.append(text)
    return ", ".join(texts)


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


def summarize_validations(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return values of the validation metrics by their names.

    Returns:
        ``best``: the lowest loss and the highest scores of trained weights; ``best_step``: their optimizer steps, the
        first of equal ones; ``last``: of the last validation; ``untrained``: of step 0.
    """
    summary: dict[str, dict[str, float]] = {"best": {}, "best_step": {}, "last": {}, "untrained": {}}
    for row in rows:
        scores = {name: value for name, value in row.items() if _is_score(name) and math.isfinite(value)}
        if row["step"] == 0:
            summary["untrained"] = scores
            continue
        summary["last"] = scores or summary["last"]
        for name, value in scores.items():
            if name not in summary["best"] or is_better(name, value, summary["best"][name]):
                summary["best"][name] = value
                summary["best_step"][name] = int(row["step"])
    return summary


def _is_score(name: str) -> bool:
    return name.startswith(SCORED) and not name.startswith("val/gate")
