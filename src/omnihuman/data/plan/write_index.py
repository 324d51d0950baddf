"""An index of records: their tables, the list of bad rows, and the manifest, which ``data=index`` reads."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from omnihuman.data.plan.fingerprint import PLANNING_CODE, hash_code
from omnihuman.data.plan.headers import HeaderStore, Outcome
from omnihuman.data.plan.index import Index
from omnihuman.data.plan.planning import probe_file
from omnihuman.data.plan.record_tables import BAD_ROWS, MANIFEST, Packing, write_records
from omnihuman.data.plan.source_plans import describe_source, name_headers
from omnihuman.data.plan.table_writer import TableWriter
from omnihuman.data.plan.tables import PlanTable
from omnihuman.data.tasks import RecordSource


def write_index(
    sources: Sequence[RecordSource], out: Path, num_processes: int, timeout: float, packing: Packing | None
) -> list[PlanTable]:
    """Write the index of sources and return their tables.

    Args:
        sources: of the records.
        out: folder of the index.
        num_processes: that check records and probe media files.
        timeout: seconds per file.
        packing: of the media; ``None``: they stay as and where they are.

    Raises:
        ValueError: no record can be used.
    """
    tables = [write_source(source, out, num_processes, timeout, packing) for source in sources]
    if not sum(map(len, tables)):
        names = ", ".join(source.location for source in sources)
        raise ValueError(f"{names}: no record can be used: {describe_bad(tables)}.")
    write_manifest(out, sources, tables, packing)
    return tables


def write_source(
    source: RecordSource, out: Path, num_processes: int, timeout: float, packing: Packing | None
) -> PlanTable:
    """Return the tables of a source; those that hold still are left as they are."""
    index = Index(out / "records")
    key = {
        "source": describe_source(source),
        "code": hash_code(*PLANNING_CODE),
        "shards": packing and packing.shards.url,
        "frames": _describe_frames(packing),
    }
    probe_one = partial(probe_file, timeout=timeout, policy="skip")

    def probe(files: Iterable[Path]) -> dict[Path, Outcome]:
        return {file: probe_one(file) for file in files}

    def write(writer: TableWriter) -> None:
        headers = HeaderStore(out / "headers" / name_headers(), probe)
        write_records(writer, source, headers, key, packing, num_processes)

    return index.get(key, write)


def _describe_frames(packing: Packing | None) -> dict[str, Any] | None:
    return asdict(packing.frames) if packing and packing.frames else None


def write_manifest(
    out: Path, sources: Sequence[RecordSource], tables: Sequence[PlanTable], packing: Packing | None
) -> None:
    """Write the list of bad rows and the manifest, and delete tables that only the earlier manifest names."""
    with (out / BAD_ROWS).open("w") as lines:
        for source, table in zip(sources, tables, strict=True):
            for row in table.report.skipped:
                lines.write(json.dumps({"records": source.location, **row}) + "\n")
    names = [table.folder.relative_to(out).as_posix() for table in tables]
    manifest: dict[str, Any] = {
        "tables": names,
        "records": [source.location for source in sources],
        "num_records": [len(table) for table in tables],
        "frames": _describe_frames(packing),
    }
    file = out / MANIFEST
    earlier = json.loads(file.read_text())["tables"] if file.is_file() else []
    partial_file = file.with_suffix(".partial")
    partial_file.write_text(json.dumps(manifest, indent=2) + "\n")
    partial_file.replace(file)
    for name in set(earlier) - set(names):
        shutil.rmtree(out / name, ignore_errors=True)


def describe(tables: Iterable[PlanTable]) -> str:
    """Return what tables hold in words."""
    totals = Counter[str]()
    for table in tables:
        totals.update(table.count_media())
    hours = totals["seconds"] / 3600
    tracks = f", {totals['tracks']} with tracks of faces" if totals["tracks"] else ""
    return f"{totals['records']} records{tracks}, {totals['clips']} clips, {hours:.2f} hours"


def describe_bad(tables: Iterable[PlanTable]) -> str:
    """Return how many rows cannot be used, and why."""
    reasons = Counter[str]()
    for table in tables:
        reasons.update(row["reason"] for row in table.report.skipped)
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{reasons.total()} bad rows ({listed}), see bad.jsonl" if reasons else "no bad row"
