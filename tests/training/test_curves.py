"""The chart of a run."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from omnihuman.training.callbacks import MetricsTable
from omnihuman.training.curves import build_figure, draw_curves
from omnihuman.training.summary import read_metrics

UNTRAINED = {"val/loss": 9.0, "val/emotion/war": 10.0, "val/emotion/uar": 12.0, "floor/emotion/war": 40.0}
TRAINED = {"val/loss": 2.0, "val/emotion/war": 60.0, "val/emotion/uar": 55.0, "floor/emotion/war": 40.0}


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, float]]:
    """The metrics of forty steps, with a validation before the first and after the last one."""
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics(UNTRAINED, step=0)
    for step in range(40):
        table.log_metrics({"train/loss": 8.0 - step / 8 + step % 2}, step=step)
    table.log_metrics(TRAINED, step=40)
    return read_metrics(table.file)


def find_lines(figure: Any, title: str) -> dict[str, Any]:
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    return {line.get_label(): line for line in axes.lines}


def test_each_kind_of_metric_has_a_panel(rows: list[dict[str, float]]) -> None:
    assert [axes.get_title() for axes in build_figure(rows, "x").axes] == ["loss", "val/emotion"]


def test_the_weights_of_the_gate_have_a_panel_for_each_task() -> None:
    row = {"step": 0.0, "train/loss": 1.0, "train/gate/face/body": 0.2, "train/gate/face/face": 0.8, "train/lr": 1.0}
    row |= {"train/gate/entropy": 0.5, "train/gate_balance_loss": 1.1}
    figure = build_figure([row, row | {"step": 1.0}], "x")
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["loss", "train/gate/face", "train/gate", "auxiliary losses"]
    assert {label.partition(",")[0] for label in find_lines(figure, "train/gate/face")} >= {"body", "face"}


def test_the_training_loss_is_smoothed(rows: list[dict[str, float]]) -> None:
    lines = find_lines(build_figure(rows, "x"), "loss")
    mean = lines["train/loss, mean of 2 steps"].get_ydata()
    assert mean[0] == 8.0 and mean[1:] == pytest.approx([8.5 - step / 8 + 1 / 16 for step in range(1, 40)])
    assert len(lines) == 4, "two of the validation, two of the training"
    faint = next(line for line in lines.values() if line.get_alpha())
    assert list(faint.get_ydata()) == [row["train/loss"] for row in rows if "train/loss" in row]


def test_the_validation_before_the_first_step_is_marked(rows: list[dict[str, float]]) -> None:
    figure = build_figure(rows, "x")
    for axes in figure.axes:
        (text,) = axes.texts
        assert text.get_text() == "untrained"
    open_circle = next(line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white")
    assert list(open_circle.get_ydata()) == [9.0]


def test_a_floor_is_drawn_beside_its_score(rows: list[dict[str, float]]) -> None:
    lines = find_lines(build_figure(rows, "x"), "val/emotion")
    floor = lines["war of the best constant answer"]
    assert list(floor.get_ydata()) == [40.0, 40.0] and floor.get_color() == lines["war"].get_color()
    assert "uar of the best constant answer" not in lines


def test_a_validation_after_the_first_step_is_not_marked(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics({"train/loss": 8.0}, step=0)
    table.log_metrics(TRAINED, step=1)
    figure = build_figure(read_metrics(table.file), "x")
    assert not any(axes.texts for axes in figure.axes)


def test_tasks_in_any_script_are_drawn(tmp_path: Path) -> None:
    rows = [
        {"step": 0.0, "train/loss": 1.0, "val/情绪/war": 10.0},
        {"step": 1.0, "train/loss": 1.0, "val/情绪/war": 9.0},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a glyph that is missing
        draw_curves(rows, tmp_path / "curves.png", "表情")
    assert (tmp_path / "curves.png").stat().st_size > 1000
