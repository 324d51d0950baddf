"""The folder of a pipeline: which pipeline it holds, what is there, what can be tried again, and what is old."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnihuman.curation.pipeline import Pipeline
from omnihuman.curation.store import write_whole

STATE = "pipeline.json"
"""File of the pipeline that a folder holds, with the folders of its operators."""


@dataclass(frozen=True)
class State:
    """The pipeline of a folder, as its last run has left it.

    Attributes:
        out: the folder.
        pipeline: its name.
        root: folder of the media of the source.
        num_parts: partitions.
        levels: name, folder, and whether it is the decision of a global operator, in order.
        command: arguments of the last run.
    """

    out: Path
    pipeline: str
    root: Path
    num_parts: int
    levels: Sequence[tuple[str, str, bool]]
    command: Sequence[str]

    def files(self, number: int) -> list[Path]:
        """Return the partitions of a level that are there."""
        return sorted((self.out / self.levels[number][1]).glob("part-*.parquet"))


def check_out(out: Path, name: str) -> None:
    """Check that a folder holds no other pipeline and no other files.

    Raises:
        ValueError: it does.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; expected a folder.")
    if (out / STATE).is_file():
        other = read_state(out).pipeline
        if other != name:
            raise ValueError(f"out={out} holds the pipeline {other}; choose another folder for {name}.")
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"out={out} holds other files and no pipeline; name an empty or a new folder.")


def write_state(pipeline: Pipeline, command: Sequence[str]) -> None:
    """Write which pipeline a folder holds."""
    levels = [(level.name, level.folder.name, level.is_decision) for level in pipeline.levels]
    content = {
        "pipeline": pipeline.name,
        "root": str(pipeline.root),
        "num_parts": pipeline.num_parts,
        "levels": levels,
        "command": list(command),
    }
    write_whole(pipeline.out / STATE, (json.dumps(content, indent=1) + "\n").encode())


def read_state(out: Path) -> State:
    """Return the pipeline of a folder.

    Raises:
        ValueError: it holds none.
    """
    file = out / STATE
    if not file.is_file():
        raise ValueError(f"out={out} holds no pipeline ({STATE} is missing); name the out= of omnihuman curate.")
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        levels = [(str(name), str(folder), bool(is_decision)) for name, folder, is_decision in content["levels"]]
        root = Path(content["root"])
        return State(out, content["pipeline"], root, content["num_parts"], levels, content["command"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: this is not the state of a pipeline ({error}); remove it, and curate again."
        ) from error


def remove_from(state: State, number: int) -> None:
    """Remove the partitions and decisions of a level and of those below it, the lowest first."""
    for level in reversed(range(number, len(state.levels))):
        for file in state.files(level):
            file.unlink()
        (state.out / state.levels[level][1] / "decision.parquet").unlink(missing_ok=True)


def remove_old(out: Path) -> list[str]:
    """Remove the folders of operators that the last run does not use, and return their names."""
    state = read_state(out)
    current = {folder for _, folder, _ in state.levels}
    removed = []
    for path in sorted(out.iterdir()):
        is_level = path.is_dir() and path.name[:2].isdigit() and path.name[2] == "-"
        if is_level and path.name not in current:
            shutil.rmtree(path)
            removed.append(path.name)
    for path in out.rglob(".*.tmp"):  # of a write that was killed
        path.unlink()
    return removed


def retry(out: Path, why: str) -> int:
    """Remove what follows from failed rows of a reason, so that the next run works on them again; return their number.

    The partitions that hold them go, from the operator that failed on; so do the decisions below it, which saw the
    other rows alone. Partitions of lower operators go first: what remains never misses what it was made of.

    Raises:
        ValueError: no row has failed so.
    """
    state = read_state(out)
    last = _find_last(state)
    counts: dict[str, int] = {}
    doomed: list[tuple[int, int]] = []
    for file in state.files(last):
        part = int(file.stem.removeprefix("part-"))
        table = pq.read_table(file, columns=["status", "why", "operator"])
        for row in table.filter(pc.equal(table["status"], "failed")).to_pylist():
            counts[row["why"]] = counts.get(row["why"], 0) + 1
            if row["why"] == why:
                first = [name for name, _, _ in state.levels].index(row["operator"])
                doomed.append((first, part))
    if not doomed:
        reasons = ", ".join(sorted(counts)) or "no row has failed"
        raise ValueError(f"why={why}: no row has failed so; there are: {reasons}.")
    for number in reversed(range(len(state.levels))):
        _remove(state, number, doomed)
    return counts[why]


def _find_last(state: State) -> int:
    """Return the lowest level that has all partitions; that of the source if none has."""
    complete = [number for number in range(len(state.levels)) if len(state.files(number)) == state.num_parts]
    return max(complete, default=0)


def _remove(state: State, number: int, doomed: Sequence[tuple[int, int]]) -> None:
    """Remove the partitions of a level that depend on failed rows, given by level and partition."""
    first = min(level for level, _ in doomed)
    decisions = [index for index, level in enumerate(state.levels) if level[2] and first < index <= number]
    for file in state.files(number):
        part = int(file.stem.removeprefix("part-"))
        is_below = any(level <= number and failed == part for level, failed in doomed)
        if decisions or is_below:
            file.unlink()
    if number in decisions:
        (state.out / state.levels[number][1] / "decision.parquet").unlink(missing_ok=True)
