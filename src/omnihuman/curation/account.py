"""The account of a pipeline: rows by operator and reason, and what they have cost."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from omnihuman.curation.folder import State, read_state
from omnihuman.curation.store import read_cost, write_whole
from omnihuman.operator.calls import count_calls
from omnihuman.operator.verdicts import FOLDER, read_verdicts, summarize

ACCOUNT = "account.json"


@dataclass
class Entry:
    """An operator's line of the account.

    Attributes:
        name: in the pipeline.
        num_done: partitions that are there.
        rows: of these partitions, those that ended above included.
        reached: rows that it has worked on.
        live: rows that are live after it.
        dropped: reason -> rows that it dropped.
        failed: reason -> rows that it failed on.
        cost: seconds, bytes, calls, tokens and dollars. ``calls`` are all since the folder is there, and
            ``calls_in_partitions`` those of the partitions that are there.
    """

    name: str
    num_done: int = 0
    rows: int = 0
    reached: int = 0
    live: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    cost: Counter[str] = field(default_factory=Counter)

    def show(self) -> dict[str, Any]:
        """Return the line as plain values."""
        cost = {key: round(value, 3) for key, value in sorted(self.cost.items())}
        ends = {"dropped": dict(sorted(self.dropped.items())), "failed": dict(sorted(self.failed.items()))}
        return {
            "operator": self.name,
            "partitions": self.num_done,
            "rows": self.rows,
            "live": self.live,
            **ends,
            "cost": cost,
        }


def count(state: State) -> list[Entry]:
    """Return the account of a folder, a line for each operator."""
    entries: list[Entry] = []
    for number, (name, folder, is_decision) in enumerate(state.levels):
        if is_decision:  # it continues the line of its operator
            entry = entries[-1]
            entry.num_done = entry.rows = entry.reached = entry.live = 0
            entry.dropped, entry.failed = Counter(), Counter()  # rows that it ended above are there once more
        else:
            entry = Entry(name)
            entries.append(entry)
        for file in state.files(number):
            _add(entry, file)
        decision = state.out / folder / "decision.parquet"
        if decision.is_file():
            entry.cost.update(_drop_rows(read_cost(decision)))
        if num_calls := count_calls(state.out / folder):
            entry.cost["calls_in_partitions"] = entry.cost["calls"]
            entry.cost["calls"] = num_calls  # with those of killed runs
    return entries


def _add(entry: Entry, file: Path) -> None:
    entry.num_done += 1
    table = pq.read_table(file, columns=["status", "operator", "why"])
    entry.rows += table.num_rows
    for group in table.group_by(table.column_names).aggregate([([], "count_all")]).to_pylist():
        entry.live += group["count_all"] * (group["status"] == "live")
        if group["operator"] == entry.name:
            ends = {"dropped": entry.dropped, "failed": entry.failed}[group["status"]]
            ends[group["why"]] += group["count_all"]
    cost = read_cost(file)
    entry.reached += int(cost["rows"])
    entry.cost.update(_drop_rows(cost))


def _drop_rows(cost: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in cost.items() if key != "rows"}


def write_account(out: Path) -> list[Entry]:
    """Write the account of a folder to its ``account.json`` and return it."""
    state = read_state(out)
    entries = count(state)
    content = {
        "pipeline": state.pipeline,
        "partitions": state.num_parts,
        "planned": entries[0].rows,
        "rows": entries[-1].rows,
        "written": entries[-1].live,
        "dropped": sum(sum(entry.dropped.values()) for entry in entries),
        "failed": sum(sum(entry.failed.values()) for entry in entries),
        "operators": [entry.show() for entry in entries],
        "reviews": summarize_reviews(out),
    }
    write_whole(out / ACCOUNT, (json.dumps(content, indent=1) + "\n").encode())
    return entries


def summarize_reviews(out: Path) -> dict[str, Any]:
    """Return the account of the verdicts of people, by the names of the operators that asked for them."""
    files = sorted((out / FOLDER).glob("*.jsonl"))
    return {file.stem: summarize(read_verdicts(file)[0]) for file in files}


def print_account(out: Path) -> None:
    """Print the account of a folder: what is live after each operator, and what it dropped and failed on, and why."""
    state = read_state(out)
    entries = count(state)
    table = Table(title=f"{state.pipeline}: {out}")
    for column in ("operator", "partitions", "live", "dropped", "failed", "cpu s", "ms/row"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for entry in entries:
        num_rows = entry.live + sum(entry.dropped.values()) + sum(entry.failed.values())
        speed = f"{1000 * entry.cost['cpu_s'] / num_rows:.1f}" if num_rows else ""
        table.add_row(
            entry.name,
            f"{entry.num_done}/{state.num_parts}",
            str(entry.live),
            _format_reasons(entry.dropped),
            _format_reasons(entry.failed),
            f"{entry.cost['cpu_s']:.1f}",
            speed,
        )
    Console(width=100).print(table)


def _format_reasons(reasons: Counter[str]) -> str:
    return "\n".join(f"{number} {why}" for why, number in sorted(reasons.items())) or "0"
