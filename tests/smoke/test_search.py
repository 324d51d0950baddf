"""The search with Optuna: what a trial trains, reports and leaves behind. Optuna itself is replaced."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from omnihuman.evaluation.tables import format_markdown
from tests.smoke.test_train import build_overrides

SEARCH = Path(__file__).parents[2] / "experiments" / "optuna_search" / "search.py"
VALUES = {"recipe.lr": 0.01, "projector@model.projectors.face": "linear"}


class PrunedError(Exception):
    """Stands for ``optuna.TrialPruned``."""


class Trial:
    """Stands for a trial that proposes the same values each time, and is pruned from a number of reports on."""

    def __init__(self, max_reports: int) -> None:
        self.max_reports, self.params, self.user_attrs = max_reports, VALUES, dict[str, str]()
        self.intermediate_values: dict[int, float] = {}
        self.number, self.value, self.state = 0, None, SimpleNamespace(name="PRUNED")

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        return float(str(VALUES[name]))

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        return str(VALUES[name])

    def set_user_attr(self, name: str, value: str) -> None:
        self.user_attrs[name] = value

    def report(self, value: float, step: int) -> None:
        self.intermediate_values[step] = value

    def should_prune(self) -> bool:
        return len(self.intermediate_values) >= self.max_reports


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "optuna", SimpleNamespace(TrialPruned=PrunedError, Trial=Trial, Study=object))
    spec = importlib.util.spec_from_file_location("search", SEARCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SHORT", ["trainer.max_epochs=3", "+trainer.limit_train_batches=1"])
    return module


@pytest.fixture
def train(search: ModuleType, corpus: Path, tmp_path: Path) -> Callable[[Trial], float]:
    command_line = build_overrides(corpus, tmp_path)
    overrides = [item for item in command_line if not item.startswith(("+experiment", "trainer.max_", "recipe.lr"))]
    return lambda trial: float(search.run_trial(trial, overrides))


@pytest.mark.slow
def test_a_trial_reports_every_validation_and_is_pruned_at_one(
    search: ModuleType, train: Callable[[Trial], float], tmp_path: Path
) -> None:
    pruned = Trial(max_reports=2)
    with pytest.raises(PrunedError):
        train(pruned)
    folder = Path(pruned.user_attrs["folder"])
    assert list(pruned.intermediate_values) == [1, 2] and not (folder / "finished").exists()
    name = "optuna,recipe.lr=0.01,projector@model.projectors.face=linear"
    assert folder == tmp_path / "nano" / search.EXPERIMENT / name
    table = search.build_table(SimpleNamespace(trials=[pruned], best_value=0.0))
    assert "| 0: projector@model.projectors.face=linear, recipe.lr=0.01 |" in format_markdown(table)

    complete = Trial(max_reports=9)
    loss = train(complete)  # resumes the pruned run, because it is the same run
    assert loss == min([*pruned.intermediate_values.values(), *complete.intermediate_values.values()])
    assert (folder / "finished").exists() and train(Trial(max_reports=0)) == loss
