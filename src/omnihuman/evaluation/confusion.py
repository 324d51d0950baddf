"""Confusion matrices and recalls of classes: counted, written as CSV and drawn as charts."""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnihuman.evaluation.folder import Evaluation
from omnihuman.evaluation.tables import write_csv_lines
from omnihuman.metric.statistics import wilson
from omnihuman.source.glyphs import make_drawable

Counts = NDArray[np.int64]
"""``[K, K + 1]``: a row per reference class, a column per answered class, the last column for invalid answers."""

POOLED = "pooled"
"""The group of all questions."""

COLOR = "#215a9e"
TINT = (0.13, 0.35, 0.62)
INVALID_TINT = (0.97, 0.75, 0.35)
FONT_SIZE = 11
"""Points, for a chart that a page shows at two thirds of its size."""

INVALID_GAP = 0.3
"""Space between the classes and the column of invalid answers, as a share of a cell."""


def count_confusions(labels: Sequence[str], references: Sequence[Any], answers: Sequence[Any]) -> Counts:
    """Return the confusion matrix ``[K, K + 1]`` of parsed answers.

    >>> count_confusions(["sad", "happy"], ["sad", "sad"], ["happy", None]).tolist()
    [[0, 1, 1], [0, 0, 0]]
    """
    index = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for reference, answer in zip(references, answers, strict=True):
        counts[index[reference], index.get(answer, len(labels))] += 1
    return counts


def build_confusions(evaluation: Evaluation) -> dict[str, Counts]:
    """Return the confusion matrix of each group and, last, of all groups; empty where the benchmark has no classes."""
    labels = evaluation.benchmark.labels
    if not labels:
        return {}
    answers = [value for value, _ in evaluation.parsed]
    matrices = {}
    if len(evaluation.groups) > 1:
        for group, indices in evaluation.groups.items():
            references = [evaluation.references[index] for index in indices]
            matrices[group] = count_confusions(labels, references, [answers[index] for index in indices])
    matrices[POOLED] = count_confusions(labels, evaluation.references, answers)
    return matrices


def build_file_name(group: str) -> str:
    """``fold 1`` -> ``confusion_fold_1``."""
    return "confusion_" + (re.sub(r"[^\w.-]+", "_", group).strip("_.") or "group")


def write_confusion(counts: Counts, labels: Sequence[str], file: Path) -> None:
    """Write a confusion matrix as CSV: a row per reference class, with its support and recall."""
    lines: list[list[object]] = [["reference", *labels, "invalid", "support", "recall"]]
    for index, (label, row) in enumerate(zip(labels, counts.tolist(), strict=True)):
        lines.append([label, *row, sum(row), _format_percent(row[index], sum(row))])
    write_csv_lines(file, lines)


def write_classes(matrices: dict[str, Counts], labels: Sequence[str], file: Path) -> None:
    """Write support, recall with its 95 % Wilson interval, and precision of each class in each group as CSV."""
    lines: list[list[object]] = [
        ["group", "class", "support", "correct", "recall", "recall low", "recall high", "answered", "precision"]
    ]
    for group, counts in matrices.items():
        for index, label in enumerate(labels):
            correct, support = int(counts[index, index]), int(counts[index].sum())
            answered = int(counts[:, index].sum())
            interval = ["", ""]
            if support:
                interval = [f"{end:.2f}" for end in wilson(correct, support)]
            recall, precision = _format_percent(correct, support), _format_percent(correct, answered)
            lines.append([group, label, support, correct, recall, *interval, answered, precision])
    write_csv_lines(file, lines)


def _format_percent(part: int, total: int) -> str:
    return f"{100 * part / total:.2f}" if total else ""


def draw_confusion(counts: Counts, labels: Sequence[str], title: str, file: Path) -> None:
    """Draw a confusion matrix: percent of each reference class with counts in brackets, and recalls beside it."""
    from matplotlib.figure import Figure

    size, support = len(labels), counts.sum(axis=1)
    percent = 100 * counts / np.maximum(support, 1)[:, None]
    recall = np.where(support > 0, percent[np.arange(size), np.arange(size)], 0.0)
    figure = Figure(figsize=(0.74 * size + 5.2, 0.58 * size + 2.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[size + 1.3, 2.6])
    _draw_matrix(left, counts, percent, labels)
    _draw_recalls(right, recall, support)
    for axes in (left, right):
        axes.tick_params(length=0, labelsize=FONT_SIZE)
        axes.xaxis.label.set_fontsize(FONT_SIZE)
        axes.yaxis.label.set_fontsize(FONT_SIZE)
        for side in axes.spines.values():
            side.set_visible(False)
    summary = f"accuracy {100 * np.trace(counts) / max(1, support.sum()):.2f}"
    summary += f", mean recall of classes {recall[support > 0].mean():.2f}"
    figure.suptitle(f"{title}\nn = {support.sum()}, {summary}", fontsize=FONT_SIZE)
    figure.savefig(file, dpi=110)


def _draw_matrix(axes: Any, counts: Counts, percent: NDArray[np.float64], labels: Sequence[str]) -> None:
    size = len(labels)
    for column in range(size + 1):
        for row in range(size):
            _draw_cell(axes, counts, percent, row, column)
    axes.set(xlim=(-0.53, size + 0.83), ylim=(size - 0.47, -0.53), aspect="auto", ylabel="reference", xlabel="answer")
    drawable = [make_drawable(label) for label in (*labels, "invalid")]
    families = dict.fromkeys(chain.from_iterable(text.families for text in drawable))
    options = {"fontfamily": list(families), "parse_math": False}  # labels are the user's own texts
    names = [text.text for text in drawable]
    columns = [*range(size), size + INVALID_GAP]
    axes.set_xticks(columns, names, rotation=35, ha="right", rotation_mode="anchor", **options)
    axes.set_yticks(range(size), names[:-1], **options)


def _draw_cell(axes: Any, counts: Counts, percent: NDArray[np.float64], row: int, column: int) -> None:
    """Draw one cell, in a deeper tint the higher its percentage, with its numbers unless it is empty."""
    from matplotlib.patches import Rectangle

    is_invalid = column == len(counts)
    x, tint = float(column), TINT
    if is_invalid:
        x, tint = column + INVALID_GAP, INVALID_TINT
    depth = float(percent[row, column]) / 100
    color = tuple(1 - depth * (1 - channel) for channel in tint)
    axes.add_patch(Rectangle((x - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="0.85", linewidth=0.6))
    if not counts[row, column]:
        return
    numbers = f"{percent[row, column]:.1f}\n({counts[row, column]})"
    text = axes.text(x, row, numbers, ha="center", va="center", fontsize=FONT_SIZE)
    if depth > 0.7 and not is_invalid:
        text.set_color("white")
    if row == column:
        text.set_fontweight("bold")


def _draw_recalls(axes: Any, recall: NDArray[np.float64], support: NDArray[np.int64]) -> None:
    size = len(recall)
    axes.barh(range(size), recall, color=COLOR, height=0.6)
    for row in range(size):
        text = "none"
        if support[row]:
            text = f"{recall[row]:.1f} of {support[row]}"
        axes.text(recall[row] + 2, row, text, va="center", fontsize=FONT_SIZE)
    axes.set(ylim=(size - 0.47, -0.53), xlim=(0, 230), xticks=[0, 50, 100], yticks=[])
    axes.set_xlabel("recall, %", x=50 / 230)
