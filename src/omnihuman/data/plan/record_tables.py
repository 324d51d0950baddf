"""Tables of checked records with the headers of their media, for ``omnihuman index``; no model decides them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample
from omnihuman.data.decode.header import Header
from omnihuman.data.exclusion import identify
from omnihuman.data.plan.blocks import Block, map_blocks, read_blocks
from omnihuman.data.plan.clip_headers import ClipHeaders, add_source
from omnihuman.data.plan.headers import HeaderStore, Outcome
from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.plan.planned import Planned, PlanReport
from omnihuman.data.plan.planning import describe_missing
from omnihuman.data.plan.stat import Stat, stat_file
from omnihuman.data.plan.stored_frames import SUFFIX, StoredFrames, probe_bytes
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
class Usable:
    """A usable record of a block whose media are to be packed.

    Attributes:
        row: place in the block.
        planned: with its header.
        stored: its frames and audio for training as a file, with the header and the state of the file that they are
            of; ``None`` where files are packed as they are, or are packed already.
    """

    row: int
    planned: Planned
    stored: tuple[bytes, Header, Stat] | None = None


@dataclass(slots=True)
class Checked:
    """The entries of a block.

    Attributes:
        rows: of the usable records, as bytes.
        skipped: the others, each with its place in the block.
        num_entries: of the block.
        usable: in place of ``rows``, the usable records, where their media are to be packed.
        outcomes: headers of the files, then.
    """

    rows: list[SampleRow]
    skipped: list[dict[str, Any]]
    num_entries: int
    usable: list[Usable] = field(default_factory=list)
    outcomes: Mapping[Path, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Packing:
    """Packs media into shards.

    Attributes:
        shards: into which.
        frames: what is stored of each video for training, ``None`` for the files themselves.
        timeout: seconds per file.
    """

    shards: ShardWriter
    frames: StoredFrames | None = None
    timeout: float = 60.0

    def store(self, usable: Sequence[Usable]) -> Iterator[tuple[int, Record, BadSample]]:
        """Make the stored files of a block, each once, and yield the records whose files cannot be decoded."""
        errors: dict[str, BadSample | None] = dict.fromkeys(self.shards.members)
        for entry in usable:
            record = entry.planned.record
            if self.frames is None or not self.frames.can_store(record):
                continue
            name = self.frames.name(record)
            if name not in errors:
                errors[name] = self._encode(self.frames, entry)
            bad = errors[name]
            if bad is not None:
                yield entry.row, record, add_source(bad, record)

    def _encode(self, frames: StoredFrames, entry: Usable) -> BadSample | None:
        """Make the stored file of a record; return the error of one that cannot be decoded."""
        record, stat = entry.planned.record, stat_file(entry.planned.record.file)
        try:
            content = frames.encode(record, entry.planned.header, self.timeout)
            entry.stored = content, probe_bytes(content, self.timeout), stat
        except BadSample as bad:
            return bad
        return None

    def pack(self, checked: Checked, headers: HeaderStore) -> None:
        """Make rows of the records of a block, whose media become members of shards."""
        usable = list[Planned]()
        for entry in checked.usable:
            record = entry.planned.record
            try:
                usable.append(self._pack(entry, checked.outcomes, headers))
            except BadSample as bad:  # a file can no longer be read
                checked.skipped.append(_describe(entry.row, record, add_source(bad, record)))
        checked.rows = encode_samples(usable)

    def _pack(self, entry: Usable, outcomes: Mapping[Path, Outcome], headers: HeaderStore) -> Planned:
        record = entry.planned.record
        if self.frames is None or not self.frames.can_store(record):
            packed = self.shards.pack(record)
            for file, member in zip(record.files, packed.files, strict=True):
                headers.add(member, outcomes[file])
            return replace(entry.planned, record=packed)
        name = self.frames.name(record)
        if entry.stored is not None and name not in self.shards.members:  # another process has not made it as well
            content, header, stat = entry.stored
            headers.add(self.shards.add(name, content, SUFFIX, record.file, stat), header)
        member = self.shards.members[name]
        packed = self.frames.replace_file(record, member)
        return replace(entry.planned, record=packed, header=media.merge_headers(packed, headers([member])))


def write_records(
    writer: TableWriter,
    source: RecordSource,
    headers: HeaderStore,
    key: Mapping[str, Any],
    packing: Packing | None = None,
    num_processes: int = 1,
) -> PlanReport:
    """Write records whose files can be used to tables, and return a report with the others.

    Args:
        writer: of the tables.
        source: of the records.
        headers: of the media files.
        key: what decides the records.
        packing: of the media, ``None`` to leave them where they are.
        num_processes: that check records and read headers.
    """
    report, first = PlanReport(), 0
    check = partial(_check, headers, packing)
    try:
        for checked in map_blocks(partial(read_blocks, source, BLOCK), check, num_processes, headers.flush):
            if packing is not None:
                packing.pack(checked, headers)
            writer.add(checked.rows)
            for skipped in sorted(checked.skipped, key=itemgetter("row")):
                report.skipped.append({**skipped, "row": first + skipped["row"]})
            first += checked.num_entries
        if packing is not None:
            packing.shards.finish()
    finally:
        headers.flush()  # of packed files, also of an index that is interrupted
    writer.finish(report, (), key)
    return report


def _check(headers: HeaderStore, packing: Packing | None, entries: Block) -> Checked:
    """Return the entries of a block with their headers."""
    files: dict[Path, None] = {}
    for entry in entries:
        files.update(dict.fromkeys(entry.files if isinstance(entry, Record) else ()))
    outcomes = headers(files)
    clips = ClipHeaders(outcomes)
    usable, skipped = list[Usable](), list[dict[str, Any]]()
    for row, entry in enumerate(entries):
        try:
            if not isinstance(entry, Record):
                raise entry[1]
            usable.append(Usable(row, Planned(entry, clips.merge(entry), {}, {}, 0, 0)))
        except BadSample as bad:
            skipped.append(_describe(row, entry, bad))
    if packing is None:
        return Checked(encode_samples(entry.planned for entry in usable), skipped, len(entries))
    bad_rows = dict[int, dict[str, Any]]()
    for row, record, error in packing.store(usable):
        bad_rows[row] = _describe(row, record, error)
    usable = [entry for entry in usable if entry.row not in bad_rows]
    return Checked([], [*skipped, *bad_rows.values()], len(entries), usable, outcomes)


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
