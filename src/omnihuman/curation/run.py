"""Run one operator on one partition: the only work that a backend hands out."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnihuman.curation.listing import Listing
from omnihuman.curation.pipeline import Level, Pipeline
from omnihuman.curation.store import build_table, make_id, read_partition, write_partition
from omnihuman.data.record import BadSample
from omnihuman.operator.base import IDENTITY, SPAN, Dropped, Failed, Global, Operator, Outcome, Row, SetupError

MAX_REASONS = 3


def run_partition(pipeline: Pipeline, number: int, part: int, get: Callable[[Level], Operator]) -> None:
    """Write a partition of a level, unless its file is there.

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
    wall, cpu = time.perf_counter(), time.process_time()
    rows = _read_rows(pipeline, level, part, () if level.is_decision else level.operator.reads)
    live = [row for row in rows if row["status"] == "live"]
    operator = level.operator if level.is_decision else get(level)
    if level.is_decision:
        outcomes = _read_decision(level, part)
    else:
        outcomes = apply_batches(operator, [_show(row) for row in live], pipeline.batch_size)
    check_failures(level.name, part, live, outcomes, pipeline.max_failed)
    columns = level.operator.writes
    if level.is_decision:
        assert isinstance(level.operator, Global)
        columns = level.operator.decides
    table = build_table(list(_join(rows, outcomes, level.name)), columns)
    cost = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "rows": float(len(live))}
    if level.operator.opens_media and not level.is_decision:
        cost["bytes_read"] = float(sum(_measure(row) for row in live))
    if not level.is_decision:
        cost |= operator.take_cost()
    write_partition(target, table, cost)


def decide(pipeline: Pipeline, number: int, operator: Global) -> None:
    """Write the decision of a global operator on the rows of all partitions, unless its file is there."""
    level = pipeline.levels[number]
    if level.decision.is_file():
        return
    wall, cpu = time.perf_counter(), time.process_time()
    rows = []
    for part in range(pipeline.num_parts):
        rows_of_part = _read_rows(pipeline, level, part, operator.compares)
        live = [row for row in rows_of_part if row["status"] == "live"]
        for order, row in enumerate(live):
            rows.append(_show(row) | {"part": part, "order": order})
    rows.sort(key=lambda row: (row["id"], row["source"]))
    outcomes = list(operator.decide(rows))
    if len(outcomes) != len(rows) or any(isinstance(outcome, list) for outcome in outcomes):
        raise RuntimeError(f"{level.name}: expected one outcome for each of {len(rows)} rows, got {len(outcomes)}.")
    decided = []
    for row, outcome in zip(rows, outcomes, strict=True):
        decided.append({"part": row["part"], "order": row["order"]} | _end(outcome))
    columns: dict[str, Any] = {"part": pa.int64(), "order": pa.int64()}
    columns |= dict.fromkeys(("status", "why", "detail"), pa.string()) | dict(operator.decides)
    table = pa.Table.from_pylist(decided, schema=pa.schema(list(columns.items())))
    cost = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "rows": float(len(rows))}
    write_partition(level.decision, table, cost)


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


def check_failures(name: str, part: int, rows: Sequence[Row], outcomes: Sequence[Outcome], max_failed: float) -> None:
    """Check that an operator has not failed on too many rows of a partition, which is then not written.

    Raises:
        ValueError: it has; the message has the first reasons.
    """
    failed = []
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, Failed):
            failed.append(f"{outcome.why}: {outcome.detail}" if outcome.detail else f"{outcome.why}: {row['source']}")
    if len(failed) > max_failed * len(rows):
        reasons = "; ".join(failed[:MAX_REASONS])
        raise ValueError(
            f"{name} failed on {len(failed)} of {len(rows)} rows of partition {part} (max_failed={max_failed:g}): "
            f"{reasons}. Correct them, or allow more: max_failed=1."
        )


def _read_rows(pipeline: Pipeline, level: Level, part: int, columns: Iterable[str]) -> list[Row]:
    """Return the rows that a level works on, with the media file and the span to open."""
    if isinstance(level.operator, Listing):
        rows = [row | {"status": "live", "parent": None} for row in level.operator.rows(part)]
    else:
        rows = read_partition(pipeline.files(level.number - 1, part), list(columns)).to_pylist()
    for row in rows:
        row["root"] = pipeline.out if row.get("media") else pipeline.root
    return rows


def _show(row: Row) -> Row:
    """Return a row as an operator sees it: a file that an operator has written is opened from its beginning."""
    media = row.get("media")
    opened = {"file": (row["root"] / (media or row["source"])).absolute()}
    if media:
        opened |= {"start": 0.0, "end": None, "source_start": row["start"]}
    return row | opened


def _read_decision(level: Level, part: int) -> list[Outcome]:
    """Return the outcomes of a decision for the live rows of a partition, in their order."""
    rows = pq.read_table(level.decision, filters=[("part", "==", part)]).sort_by("order").to_pylist()
    outcomes: list[Outcome] = []
    for row in rows:
        status, why, detail = (row.pop(key) for key in ("status", "why", "detail"))
        if status == "dropped":
            outcomes.append(Dropped(why, detail))
        elif status == "failed":
            outcomes.append(Failed(why, detail))
        else:
            outcomes.append({name: row[name] for name in row if name not in ("part", "order")})
    return outcomes


def _end(outcome: Outcome) -> Row:
    """Return the columns of a row that has come to its end, or those that an operator gives it."""
    if isinstance(outcome, Dropped | Failed):
        status = "dropped" if isinstance(outcome, Dropped) else "failed"
        return {"status": status, "why": outcome.why, "detail": outcome.detail}
    assert isinstance(outcome, dict)
    return {"status": "live"} | outcome


def _join(rows: Sequence[Row], outcomes: Sequence[Outcome], name: str) -> Iterable[Row]:
    """Yield the rows of a partition with what has become of the live ones."""
    remaining = iter(outcomes)
    for number, row in enumerate(rows):
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
    path: Path = row["root"] / (row.get("media") or row["source"])
    return path.stat().st_size if path.is_file() else 0
