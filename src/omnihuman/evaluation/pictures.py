"""Confusion matrices and recalls of classes, counted, written and drawn."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnihuman.evaluation.folder import Evaluation
from omnihuman.evaluation.tables import write_lines
from omnihuman.metric.statistics import wilson

POOLED = "pooled"


def confusion(labels: Sequence[str], truths: Sequence[Any], answers: Sequence[Any]) -> NDArray[np.int64]:
    """Truths and parsed answers -> counts ``[K, K + 1]``: a row for every true class, the last column is no class.

    >>> confusion(["sad", "happy"], ["sad", "sad"], ["happy", None]).tolist()
    [[0, 1, 1], [0, 0, 0]]
    """
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for truth, answer in zip(truths, answers, strict=True):
        counts[place[truth], place.get(answer, len(labels))] += 1
    return counts


def confusions(evaluation: Evaluation) -> dict[str, NDArray[np.int64]]:
    """Group -> its counts, and all groups pooled; nothing where the benchmark has no classes."""
    if not evaluation.benchmark.labels:
        return {}
    groups = evaluation.groups
    parts = groups if len(groups) > 1 else {}
    everything = {**parts, POOLED: list(range(len(evaluation.predictions)))}
    return {
        group: confusion(
            evaluation.benchmark.labels,
            [evaluation.truths[index] for index in places],
            [evaluation.parsed[index][0] for index in places],
        )
        for group, places in everything.items()
    }


def file_of(group: str) -> str:
    """``fold 1`` -> ``confusion_fold_1``."""
    return "confusion_" + (re.sub(r"[^\w.-]+", "_", group).strip("_.") or "group")


def write_confusion(counts: NDArray[np.int64], labels: Sequence[str], file: Path) -> None:
    """Counts as CSV: rows are true classes, then come their support and recall."""
    lines: list[list[object]] = [["truth", *labels, "invalid", "support", "recall"]]
    for label, row in zip(labels, counts.tolist(), strict=True):
        right, support = row[labels.index(label)], sum(row)
        lines.append([label, *row, support, f"{100 * right / support:.2f}" if support else ""])
    write_lines(file, lines)


def write_classes(matrices: dict[str, NDArray[np.int64]], labels: Sequence[str], file: Path) -> None:
    """Support, recall with its 95 % Wilson interval, and precision of every class in every group, as CSV."""
    lines: list[list[object]] = [
        ["group", "class", "support", "right", "recall", "recall low", "recall high", "answered", "precision"]
    ]
    for group, counts in matrices.items():
        for index, label in enumerate(labels):
            support, right, answered = int(counts[index].sum()), int(counts[index, index]), int(counts[:, index].sum())
            recall = ["", "", ""]
            if support:
                recall = [f"{value:.2f}" for value in (100 * right / support, *wilson(right, support))]
            precision = f"{100 * right / answered:.2f}" if answered else ""
            lines.append([group, label, support, right, *recall, answered, precision])
    write_lines(file, lines)


def draw_confusion(counts: NDArray[np.int64], labels: Sequence[str], title: str, file: Path) -> None:
    """Counts as a picture: percent of each true class, counts in brackets, no class last, recalls on the side."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    size, support = len(labels), counts.sum(axis=1)
    percent = 100 * counts / np.maximum(support, 1)[:, None]
    figure = Figure(figsize=(0.85 * size + 5.2, 0.62 * size + 1.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[size + 1.3, 2.6])
    # what is no class stands apart: a gap, and another colour
    for column in range(size + 1):
        x = column + (0.3 if column == size else 0)
        for row in range(size):
            depth = float(percent[row, column]) / 100
            tint = (0.97, 0.75, 0.35) if column == size else (0.13, 0.35, 0.62)
            fill = tuple(1 - depth * (1 - part) for part in tint)
            left.add_patch(Rectangle((x - 0.5, row - 0.5), 1, 1, facecolor=fill, edgecolor="0.85", linewidth=0.6))
            if counts[row, column]:
                ink = "white" if depth > 0.7 and column < size else "black"
                strong = "bold" if row == column else "normal"
                words = f"{percent[row, column]:.1f}\n({counts[row, column]})"
                left.text(x, row, words, ha="center", va="center", fontsize=8, color=ink, fontweight=strong)
    left.set(xlim=(-0.53, size + 0.83), ylim=(size - 0.47, -0.53), aspect="auto", ylabel="truth", xlabel="answer")
    left.set_xticks([*range(size), size + 0.3], [*labels, "invalid"], rotation=35, ha="right", rotation_mode="anchor")
    left.set_yticks(range(size), labels)
    recall = np.where(support > 0, percent[np.arange(size), np.arange(size)], 0.0)
    right.barh(range(size), recall, color="#215a9e", height=0.6)
    for row in range(size):
        words = f"{recall[row]:.1f} of {support[row]}" if support[row] else "none"
        right.text(recall[row] + 2, row, words, va="center", fontsize=8)
    right.set(ylim=(size - 0.47, -0.53), xlim=(0, 185), xticks=[0, 50, 100], yticks=[])
    right.set_xlabel("recall, %", x=50 / 185)
    for axes in (left, right):
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    words = f"accuracy {100 * np.trace(counts) / max(1, support.sum()):.2f}"
    words += f", mean recall of classes {recall[support > 0].mean():.2f}"
    figure.suptitle(f"{title}\nn = {support.sum()}, {words}", fontsize=10)
    figure.savefig(file, dpi=110)
