"""The contract of operators, for every preset: built, picklable, and true to the columns that it declares."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from omnihuman.build import build, config_dir
from omnihuman.curation.run import apply_batches
from omnihuman.curation.store import build_table, read_partition
from omnihuman.operator.base import Dropped, Failed, Global, Operator, Outcome, Row
from tests.curation.conftest import build_on, compose_operator, run_here
from tests.curation.conftest import clips as clips

NAMES = sorted(path.stem for path in (Path(config_dir()) / "operator").glob("*.yaml"))

CAPTIONER = {
    "_target_": "omnihuman.judge.scripted.ScriptedJudge",
    "_partial_": True,
    "replies": {"brief": {"caption": {"tasks": ["caption", "body"]}}},
}

OPTIONS: dict[str, dict[str, Any]] = {
    "ask": {"captioner": CAPTIONER},
    "filter": {"conditions": [{"column": "short_side", "most": 64}]},
    "review": {"mode": "skip", "edit": {"speech": "text"}, "show": {"faces": "num_faces"}},
    "sample": {"size": 2, "strata": ["short_side"]},
    "faces": {"boxes": "truth"},
    "persons": {"boxes": "truth"},
    "speaking": {"speakers": "truth"},
    "transcribe": {"words": "truth"},
    "scenes": {"min_seconds": 0.2},
    "trim": {"least_frames": 4, "most_frames": 8},
}
"""Options without a default, and those that tiny clips need."""

ABOVE = ("probe", "extract_frames", "faces", "transcribe")
"""Operators whose columns the others read."""

every_operator = pytest.mark.parametrize("name", NAMES)


def build_operator(name: str) -> Operator:
    nodes = {"pipeline": {"operators": {name: compose_operator(name, **OPTIONS.get(name, {}))}}}
    operator: Operator = build(nodes)["pipeline"]["operators"][name]
    for module in operator.modules.split():
        pytest.importorskip(module)
    return operator


@pytest.fixture(scope="module")
def rows(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Return live rows with the columns of the operators that the others read."""
    nodes = {key: compose_operator(key, **OPTIONS.get(key, {})) for key in ABOVE}
    pipeline = run_here(build_on(clips, nodes, tmp_path_factory.mktemp("above"), partition_size=100))
    columns: list[str] = []
    for level in pipeline.levels:
        columns += level.operator.writes
    table = read_partition(pipeline.files(len(pipeline.levels) - 1, 0), columns).to_pylist()
    live = [row | {"file": clips / row["source"]} for row in table if row["status"] == "live"]
    assert len(live) == 5
    return live


def apply(name: str, rows: Sequence[Row], batch_size: int, folder: Path) -> list[Outcome]:
    """Apply a new operator, after it has travelled to a worker."""
    operator: Operator = pickle.loads(pickle.dumps(build_operator(name)))
    folder.mkdir(exist_ok=True)
    operator.setup(folder)
    return apply_batches(operator, rows, batch_size)


@every_operator
def test_rows_have_the_declared_columns(name: str, rows: list[Row], tmp_path: Path) -> None:
    operator = build_operator(name)
    results: list[Row] = []
    for outcome in apply(name, rows, 16, tmp_path / "03-x"):
        assert not isinstance(outcome, Failed), outcome
        if not isinstance(outcome, Dropped):
            results += outcome if isinstance(outcome, list) else [outcome]
    assert results and all(set(result) == set(operator.writes) for result in results)
    assert build_table(results, operator.writes).select(list(operator.writes)).to_pylist() is not None


@every_operator
def test_outcomes_are_the_same_in_any_batch_and_order(name: str, rows: list[Row], tmp_path: Path) -> None:
    together = apply(name, rows, 16, tmp_path / "03-x")
    alone = apply(name, rows[::-1], 1, tmp_path / "03-x")[::-1]
    assert alone == together


@every_operator
def test_a_decision_is_one_outcome_a_row(name: str, clips: Path, rows: list[Row], tmp_path: Path) -> None:
    operator = build_operator(name)
    if not isinstance(operator, Global):
        return
    assert set(operator.compares) <= {*operator.reads, *operator.writes}
    nodes = {key: compose_operator(key, **OPTIONS.get(key, {})) for key in (*ABOVE, name)}
    pipeline = run_here(build_on(clips, nodes, tmp_path, partition_size=2))
    decision = pq.read_table(pipeline.levels[-1].decision)
    assert decision.num_rows == len(rows) and set(operator.decides) <= set(decision.column_names)
