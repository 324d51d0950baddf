"""Run one operator on one partition: the only work that a backend hands out."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnihuman.curation.listing import Listing
from omnihuman.curation.pipeline import Level, Pipeline
from omnihuman.curation.store import build_table, make_id, read_partition, write_partition, write_table
from omnihuman.data.record import BadSample
from omnihuman.operator.base import IDENTITY, SPAN, Dropped, Failed, Global, Operator, Outcome, Row, SetupError
from omnihuman.operator.rows import TableRows, locate

MAX_REASONS = 3


def run_partition(pipeline: Pipeline, number: int, part: int, get: Callable[[Level], Operator]) -> None:
    """Write a partition of a level, unless its file is there.

    Python holds the rows of a batch at once, Arrow those of the partition.

    Args:
        pipeline: of the level.
        number: of the level.
        part: number of the partition.
        get: returns the operator of a level, set up.

    Raises:
        ValueError: too many rows fail, or the disk is full.
    """
    level = pipeline.levels[number]
    target = level.file(part)
    if target.is_file():
        return
    clock = Clock()
    operator = level.operator if level.is_decision else get(level)
    table = _read_table(pipeline, level, part)
    is_live = pc.equal(table["status"], "live").to_numpy(zero_copy_only=False)
    limit = FailureLimit(level.name, part, int(is_live.sum()), pipeline.max_failed)
    decision = iter(_read_decision(level, part)) if level.is_decision else None
    columns = _list_written(level)
    chunks, num_bytes = [build_table([], columns)], 0
    for begin, end in _cut(is_live, pipeline.batch_size):
        rows = table.slice(begin, end - begin).to_pylist()
        live = [locate(row, pipeline.root, pipeline.out) for row in rows if row["status"] == "live"]
        if decision is None:
            outcomes = apply_batches(operator, live, pipeline.batch_size)
        else:
            outcomes = [next(decision) for _ in live]
        limit.check(live, outcomes)
        if level.operator.opens_media and decision is None:
            num_bytes += sum(_measure(row) for row in live)
        chunks.append(build_table(list(_join(rows, begin, outcomes, level.name)), columns))
    cost = clock.read() | {"rows": float(is_live.sum()), "bytes_read": float(num_bytes)}
    if decision is None:
        cost |= operator.take_cost()
    write_partition(target, pa.concat_tables(chunks), cost)


def decide(pipeline: Pipeline, number: int, operator: Global) -> None:
    """Write the decision of a global operator on the rows of all partitions, unless it is there.

    Of all rows only the columns that it compares are in memory.
    """
    level = pipeline.levels[number]
    if is_decided(pipeline, number, operator):
        return
    clock = Clock()
    parts = []
    for part in range(pipeline.num_parts):
        table = read_partition(pipeline.files(number - 1, part), list(operator.compares))
        live = table.filter(pc.equal(table["status"], "live")).drop_columns(["status", "operator", "why", "detail"])
        parts.append(live)
    rows = TableRows(pa.concat_tables(parts), pipeline.root, pipeline.out)
    outcomes = operator.decide(rows)
    if len(outcomes) != len(rows) or any(isinstance(outcome, list) for outcome in outcomes):
        raise RuntimeError(f"{level.name}: expected one outcome for each of {len(rows)} rows, got {len(outcomes)}.")
    schema: dict[str, Any] = dict.fromkeys(("status", "why", "detail"), pa.string()) | dict(operator.decides)
    remaining = iter(outcomes)

    def build() -> Iterator[pa.Table]:
        for part, live in enumerate(parts):
            ends = [_end(next(remaining)) for _ in range(live.num_rows)]
            decided = pa.Table.from_pylist(ends, schema=pa.schema(list(schema.items())))
            yield decided.append_column("part", pa.array([part] * live.num_rows, pa.int64()))

    write_table(level.decision, build(), clock.read() | {"rows": float(len(rows))})


def is_decided(pipeline: Pipeline, number: int, operator: Operator) -> bool:
    """Return true if the decision of a global operator is there, and all that belongs to it."""
    assert isinstance(operator, Global)
    level = pipeline.levels[number]
    return level.decision.is_file() and operator.is_complete(pipeline.levels[number - 1].folder)


class Clock:
    """Seconds since it was made, on the wall and of this process."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Return ``wall_s`` and ``cpu_s``."""
        return {"wall_s": time.perf_counter() - self.wall, "cpu_s": time.process_time() - self.cpu}


def apply_batches(operator: Operator, rows: Sequence[Row], batch_size: int) -> list[Outcome]:
    """Return one outcome a row; a batch in which the operator raises is tried again row by row."""
    outcomes: list[Outcome] = []
    for begin in range(0, len(rows), batch_size):
        batch = rows[begin : begin + batch_size]
        try:
            results = _apply(operator, batch)
        except Exception as error:
            if _is_fatal(error):
                raise
            results = [_apply_alone(operator, row) for row in batch]
        outcomes += results
    return outcomes


def _apply(operator: Operator, rows: Sequence[Row]) -> list[Outcome]:
    results = list(operator.apply(rows))
    if len(results) != len(rows):
        raise RuntimeError(f"{type(operator).__name__} gave {len(results)} outcomes for {len(rows)} rows.")
    return results


def _apply_alone(operator: Operator, row: Row) -> Outcome:
    try:
        return _apply(operator, [row])[0]
    except BadSample as bad:
        return Failed(bad.reason, str(bad))
    except Exception as error:
        if _is_fatal(error):
            raise
        return Failed("unexpected_error", f"{type(error).__name__}: {error}")


def _is_fatal(error: Exception) -> bool:
    """Return true for an error of the machine or the setup, which every other row would meet as well."""
    return isinstance(error, MemoryError | ModuleNotFoundError | SetupError)


class FailureLimit:
    """Ends the run as soon as an operator has failed on too many rows of a partition, which is then not written.

    Args:
        name: of the operator.
        part: number of the partition.
        num_rows: of the partition that the operator works on.
        max_failed: share of them that may fail.
    """

    def __init__(self, name: str, part: int, num_rows: int, max_failed: float) -> None:
        self.name, self.part, self.num_rows, self.max_failed = name, part, num_rows, max_failed
        self.failures: list[str] = []

    def check(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
        """Count the failures of a batch.

        Raises:
            ValueError: there are too many; the message has the first reasons.
        """
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, Failed):
                self.failures.append(f"{outcome.why}: {outcome.detail or row['source']}")
        if len(self.failures) > self.max_failed * self.num_rows:
            reasons = "; ".join(dict.fromkeys(self.failures[:MAX_REASONS]))
            raise ValueError(
                f"{self.name} failed on {len(self.failures)} of {self.num_rows} rows of partition {self.part} "
                f"(max_failed={self.max_failed:g}): {reasons}. Correct them, or allow more: max_failed=1."
            )


def _read_table(pipeline: Pipeline, level: Level, part: int) -> pa.Table:
    """Return the rows that a level works on, with the columns that its operator reads."""
    if isinstance(level.operator, Listing):
        return level.operator.read(part)
    columns = () if level.is_decision else level.operator.reads
    return read_partition(pipeline.files(level.number - 1, part), list(columns))


def _list_written(level: Level) -> Any:
    """Return the columns that a level stores."""
    if not level.is_decision:
        return level.operator.writes
    assert isinstance(level.operator, Global)
    return level.operator.decides


def _cut(is_live: Any, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows, in order, each with a batch of live ones."""
    ends = (np.flatnonzero(is_live)[batch_size - 1 :: batch_size] + 1).tolist()
    begin = 0
    for end in [*ends, len(is_live)]:
        if end > begin:
            yield begin, end
            begin = end


def _read_decision(level: Level, part: int) -> list[Outcome]:
    """Return the outcomes of a decision for the live rows of a partition, in their order."""
    rows = pq.read_table(level.decision, filters=[("part", "==", part)]).to_pylist()
    outcomes: list[Outcome] = []
    for row in rows:
        status, why, detail = (row.pop(key) for key in ("status", "why", "detail"))
        if status == "dropped":
            outcomes.append(Dropped(why, detail))
        elif status == "failed":
            outcomes.append(Failed(why, detail))
        else:
            outcomes.append({name: row[name] for name in row if name != "part"})
    return outcomes


def _end(outcome: Outcome) -> Row:
    """Return the columns of a row that has come to its end, or those that an operator gives it."""
    if isinstance(outcome, Dropped | Failed):
        status = "dropped" if isinstance(outcome, Dropped) else "failed"
        return {"status": status, "why": outcome.why, "detail": outcome.detail}
    assert isinstance(outcome, dict)
    return {"status": "live"} | outcome


def _join(rows: Sequence[Row], first: int, outcomes: Sequence[Outcome], name: str) -> Iterable[Row]:
    """Yield rows of a partition, of which the first has this number, with what has become of the live ones."""
    remaining = iter(outcomes)
    for number, row in enumerate(rows, start=first):
        base = {key: row.get(key) for key in (*IDENTITY, "status", "operator", "why", "detail")} | {"parent": number}
        if row["status"] != "live":
            yield base
            continue
        outcome = next(remaining)
        if outcome == []:
            outcome = Dropped("no_rows", f"{name} made no row of it")
        for result in outcome if isinstance(outcome, list) else [outcome]:
            ended = _end(result)
            if ended["status"] != "live":
                ended["operator"] = name
            joined = base | ended
            if set(SPAN) & set(ended) or "digest" in ended:
                joined["id"] = make_id(str(joined["digest"]), joined["start"], joined["end"], joined["track"])
            yield joined


def _measure(row: Row) -> int:
    return row["file"].stat().st_size if row["file"].is_file() else 0
