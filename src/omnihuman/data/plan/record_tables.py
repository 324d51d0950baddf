"""Tables of checked records with the headers of their media, for ``omnihuman index``; no model decides them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample
from omnihuman.data.exclusion import identify
from omnihuman.data.plan.headers import HeaderStore, Outcome
from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.plan.planned import Planned, PlanReport
from omnihuman.data.plan.planning import CHUNK, add_source, describe_missing
from omnihuman.data.plan.tables import PlanTable, TableWriter
from omnihuman.data.record import Entry, Record

MANIFEST = "index.json"
"""File of an index that names its tables."""

BAD_ROWS = "bad.jsonl"
"""File of an index with a line for each row that cannot be used."""


def write_records(
    writer: TableWriter,
    entries: Iterable[Entry],
    headers: HeaderStore,
    key: Mapping[str, Any],
    shards: ShardWriter | None = None,
) -> PlanReport:
    """Write records whose files can be used to tables, and return a report with the others.

    Args:
        writer: of the tables.
        entries: in order.
        headers: of the media files.
        key: what decides the records.
        shards: packs the media, ``None`` to leave them where they are.
    """
    report, first = PlanReport(), 0
    remaining = iter(entries)
    try:
        while chunk := list(islice(remaining, CHUNK)):
            files: dict[Path, None] = {}
            for entry in chunk:
                files.update(dict.fromkeys(entry.files if isinstance(entry, Record) else ()))
            outcomes = headers(files)
            usable = list[Planned]()
            for row, entry in enumerate(chunk, first):
                try:
                    planned = _join_header(entry, outcomes)
                    usable.append(planned if shards is None else _pack(planned, outcomes, headers, shards))
                except BadSample as bad:
                    name, file = identify(entry)
                    skipped = {"row": row, "id": name, "file": file, "reason": bad.reason, "message": str(bad)}
                    report.skipped.append(skipped | describe_missing(entry, bad))
            writer.add(usable)
            first += len(chunk)
        if shards is not None:
            shards.finish()
    finally:
        headers.flush()  # also of an index that is interrupted
    writer.finish(report, (), key)
    return report


def _join_header(entry: Entry, outcomes: Mapping[Path, Outcome]) -> Planned:
    """Return a record with its header, and without the sizes that a model decides.

    Raises:
        BadSample: the record, or one of its files, cannot be used.
    """
    if not isinstance(entry, Record):
        raise entry[1]
    try:
        return Planned(entry, media.merge_headers(entry, outcomes), {}, {}, 0, 0)
    except BadSample as bad:
        raise add_source(bad, entry) from bad


def _pack(planned: Planned, outcomes: Mapping[Path, Outcome], headers: HeaderStore, shards: ShardWriter) -> Planned:
    """Return a record whose files are members of shards, with their headers.

    Raises:
        BadSample: a file can no longer be read.
    """
    record = planned.record
    try:
        packed = shards.pack(record)
    except BadSample as bad:
        raise add_source(bad, record) from bad
    for file, member in zip(record.files, packed.files, strict=True):
        headers.add(member, outcomes[file])
    return replace(planned, record=packed)


def read_entries(table: PlanTable) -> Iterator[Entry]:
    """Yield the records of a table and the errors of bad rows, in the order of the rows; each is built when read."""
    records = table.iterate_records()
    row = 0
    for skipped in table.report.skipped:
        number = skipped["row"] - row
        yield from islice(records, number)
        yield skipped["id"], BadSample(skipped["reason"], skipped["message"])
        row += number + 1
    yield from records


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of an index.

    Raises:
        ValueError: there is none.
    """
    file = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        _ = manifest["tables"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "write it with omnihuman index records=... root=... out=..."
        raise ValueError(f"{folder}: no index ({error!r:.80}); {cure}.") from error
    return manifest
