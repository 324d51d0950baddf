"""Run the study of the gate, then count which branch wins for the instructions of each task.

python experiments/gate_collapse/measure.py [overrides of the study, such as "seeds=[1,2]" size=nano]
"""

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.folder import PREDICTIONS, load_benchmark, read_predictions
from omnihuman.evaluation.tables import Number, Row, Table, format_markdown, write_table
from omnihuman.studies.config import compose_study, load_study
from omnihuman.studies.outcome import locate_results
from omnihuman.studies.results import read_results

FUSION = "gate"
TASKS = ("face", "body", "interaction", "emotion")
"""Evaluations of the study without a control."""


def measure_weights(predictions: Sequence[Prediction], branches: Sequence[str]) -> tuple[Number, ...]:
    """Return the share of wins of each branch in percent, its mean weight, and the mean entropy by log K."""
    wins, totals, entropy = dict.fromkeys(branches, 0), dict.fromkeys(branches, 0.0), 0.0
    answered = [prediction for prediction in predictions if prediction.error is None]
    for prediction in answered:
        weights = prediction.weights[FUSION]
        wins[max(branches, key=weights.__getitem__)] += 1
        for branch in branches:
            totals[branch] += weights[branch]
            if weights[branch] > 0:
                entropy -= weights[branch] * math.log(weights[branch])
    count = len(answered)
    numbers = [Number(100 * wins[branch] / count, 1) for branch in branches]
    numbers += [Number(totals[branch] / count, 3) for branch in branches]
    return (*numbers, Number(entropy / count / math.log(len(branches)), 3))


def build_table(config: DictConfig, branches: Sequence[str]) -> Table:
    """Return a row for each cell, seed and task of a study that is finished."""
    rows = []
    for result in read_results(config).values():
        for seed, outcome in result.finished.items():
            for task in TASKS:
                folder = Path(outcome.evaluations[task])
                predictions = read_predictions(folder / PREDICTIONS, load_benchmark(folder).name)
                numbers = measure_weights(predictions, branches)
                rows.append(Row(f"{result.label}, seed {seed}", task, numbers, is_ours=True))
    columns = [f"{branch} wins, %" for branch in branches] + [f"{branch} weight" for branch in branches]
    notes = ("The branch with the highest weight wins.",)
    return Table(
        "Weights of the branches",
        (*columns, "entropy / log K"),
        tuple(rows),
        notes,
        ("cell", "instructions", "protocol", "source"),
    )


def main(overrides: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "omnihuman.study", "gate_collapse", *overrides], check=True)
    composed = compose_study("gate_collapse", overrides)
    config = load_study(str(composed.study), str(composed.runs), str(composed.size))
    table = build_table(config, ("interaction", "body", "face"))
    write_table(table, locate_results(config), "branches")
    print(format_markdown(table))


if __name__ == "__main__":
    main(sys.argv[1:])
