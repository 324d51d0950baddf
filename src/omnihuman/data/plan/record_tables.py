"""Tables of checked records with the headers of their media, for ``omnihuman index``; no model decides them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.exclusion import identify
from omnihuman.data.plan.blocks import Block, map_blocks, read_blocks
from omnihuman.data.plan.clip_headers import ClipHeaders, add_source
from omnihuman.data.plan.headers import HeaderStore, Outcome
from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.plan.planned import Planned, PlanReport
from omnihuman.data.plan.planning import describe_missing
from omnihuman.data.plan.table_writer import SampleRow, TableWriter, encode_samples
from omnihuman.data.plan.tables import PlanTable
from omnihuman.data.record import Entry, Record
from omnihuman.data.tasks import RecordSource

BLOCK = 128
"""Entries that a process checks at a time."""

MANIFEST = "index.json"
"""File of an index that names its tables."""

BAD_ROWS = "bad.jsonl"
"""File of an index with a line for each row that cannot be used."""


RawEntry = tuple[PlanTable, bytes, int] | tuple[str, BadSample]
"""A row of a table, or the id of a bad row and its error."""


@dataclass(slots=True)
class Checked:
    """The entries of a block.

    Attributes:
        rows: of the usable records, as bytes.
        skipped: the others, each with its place in the block.
        num_entries: of the block.
        samples: in place of ``rows``, the places of the usable records and these, where their media are to be packed.
        outcomes: headers of the files, then.
    """

    rows: list[SampleRow]
    skipped: list[dict[str, Any]]
    num_entries: int
    samples: list[tuple[int, Planned]] = field(default_factory=list)
    outcomes: Mapping[Path, Outcome] = field(default_factory=dict)


def write_records(
    writer: TableWriter,
    source: RecordSource,
    headers: HeaderStore,
    key: Mapping[str, Any],
    shards: ShardWriter | None = None,
    num_processes: int = 1,
) -> PlanReport:
    """Write records whose files can be used to tables, and return a report with the others.

    Args:
        writer: of the tables.
        source: of the records.
        headers: of the media files.
        key: what decides the records.
        shards: packs the media, ``None`` to leave them where they are.
        num_processes: that check records and read headers.
    """
    report, first = PlanReport(), 0
    check = partial(_check, headers, is_packed=shards is not None)
    try:
        for checked in map_blocks(partial(read_blocks, source, BLOCK), check, num_processes, headers.flush):
            if shards is not None:
                _pack(checked, headers, shards)
            writer.add(checked.rows)
            for skipped in sorted(checked.skipped, key=itemgetter("row")):
                report.skipped.append({**skipped, "row": first + skipped["row"]})
            first += checked.num_entries
        if shards is not None:
            shards.finish()
    finally:
        headers.flush()  # of packed files, also of an index that is interrupted
    writer.finish(report, (), key)
    return report


def _check(headers: HeaderStore, entries: Block, *, is_packed: bool) -> Checked:
    """Return the entries of a block with their headers."""
    files: dict[Path, None] = {}
    for entry in entries:
        files.update(dict.fromkeys(entry.files if isinstance(entry, Record) else ()))
    outcomes = headers(files)
    clips = ClipHeaders(outcomes)
    usable, skipped = list[tuple[int, Planned]](), list[dict[str, Any]]()
    for row, entry in enumerate(entries):
        try:
            if not isinstance(entry, Record):
                raise entry[1]
            usable.append((row, Planned(entry, clips.merge(entry), {}, {}, 0, 0)))
        except BadSample as bad:
            skipped.append(_describe(row, entry, bad))
    if is_packed:
        return Checked([], skipped, len(entries), usable, outcomes)
    return Checked(encode_samples(planned for _, planned in usable), skipped, len(entries))


def _pack(checked: Checked, headers: HeaderStore, shards: ShardWriter) -> None:
    """Make rows of the records of a block, whose files become members of shards."""
    usable = list[Planned]()
    for row, planned in checked.samples:
        record = planned.record
        try:
            packed = shards.pack(record)
        except BadSample as bad:  # a file can no longer be read
            checked.skipped.append(_describe(row, record, add_source(bad, record)))
            continue
        for file, member in zip(record.files, packed.files, strict=True):
            headers.add(member, checked.outcomes[file])
        usable.append(replace(planned, record=packed))
    checked.rows = encode_samples(usable)


def _describe(row: int, entry: Entry, bad: BadSample) -> dict[str, Any]:
    name, file = identify(entry)
    skipped = {"row": row, "id": name, "file": file, "reason": bad.reason, "message": str(bad)}
    return skipped | describe_missing(entry, bad)


def read_rows(table: PlanTable) -> Iterator[RawEntry]:
    """Yield the records of a table as it holds them, and the errors of bad rows, in the order of the rows."""
    rows = ((table, text, track) for text, track in table.iterate_rows())
    first = 0
    for skipped in table.report.skipped:
        number = skipped["row"] - first
        yield from islice(rows, number)
        yield skipped["id"], BadSample(skipped["reason"], skipped["message"])
        first += number + 1
    yield from rows


def parse_row(row: RawEntry) -> Entry:
    """Return the record of a row, or the id of a bad row and its error."""
    if len(row) == 2:
        return row
    table, text, track = row
    return table.decode_row(text, track)


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
