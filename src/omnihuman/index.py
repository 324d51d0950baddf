"""Check records and probe their media once for all runs: ``omnihuman index records=a.jsonl root=media out=index``."""

import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from omnihuman.build import build
from omnihuman.source.root import VALIDATION_INDEX, read_records_folder
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.plan.headers import Outcome
    from omnihuman.data.plan.pack_shards import ShardWriter
    from omnihuman.data.plan.tables import PlanTable
    from omnihuman.data.tasks import RecordSource

FILES_AT_ONCE = 16
"""Files that a process probes at once."""


@verb("index", "root", "out")
def main(config: DictConfig) -> None:
    """Write the tables of each data file, the list of bad rows and the manifest, and print what they hold.

    Raises:
        ValueError: a key is wrong, ``out`` holds something else, or no record can be used.
    """
    for name in ("timeout", "processes"):
        if config[name] is not None and not config[name] > 0:
            raise ValueError(f"{name}={config[name]}: expected a number above 0.")
    out = Path(config.out).expanduser()
    check_out(out)
    paths = list(config.records) if isinstance(config.records, ListConfig) else [config.records]
    splits = {out: paths}
    val = find_validation(paths)
    if val is not None:
        splits[out / VALIDATION_INDEX] = [val]
    factory = build(config.source)
    num_processes = config.processes or len(os.sched_getaffinity(0))
    shards = open_shards(config, out)
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("fork")) as pool:
        for folder, names in splits.items():
            sources = [factory(name, config.root) for name in names]
            tables = [write_source(source, folder, pool, float(config.timeout), shards) for source in sources]
            if not sum(map(len, tables)):
                raise ValueError(f"{', '.join(map(str, names))}: no record can be used: {describe_bad(tables)}.")
            write_manifest(folder, sources, tables)
            print(f"{folder}: {describe(tables)}; {describe_bad(tables)}")
    more = "" if val else " data.val_records=<index of the validation>"
    print(f"Next: omnihuman train +experiment=finetune base=<folder> data=index data.index={out}{more}")


def find_validation(paths: Sequence[Any]) -> Path | None:
    """Return the file of the validation records, if the only path is a folder of ``omnihuman records`` that has one."""
    if len(paths) != 1 or not Path(paths[0]).is_dir():
        return None
    return read_records_folder(paths[0]).val


def check_out(out: Path) -> None:
    """Check that a folder is an index, begun or finished, or empty.

    Raises:
        ValueError: it is not.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; expected a folder.")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if names and not names & {"index.json", "records", "shards"}:
        raise ValueError(f"out={out} holds other files ({sorted(names)[0]} ...); choose a new folder.")


def open_shards(config: DictConfig, out: Path) -> "ShardWriter | None":
    """Return what packs the media, ``None`` where they stay where they are.

    Raises:
        ValueError: an option is invalid.
    """
    from omnihuman.data.plan.pack_shards import ShardWriter

    if not config.shard_gb > 0:
        raise ValueError(f"shard_gb={config.shard_gb}: expected a number above 0.")
    if config.shards is None:
        if config.shards_url is not None:
            raise ValueError("shards_url: without shards= nothing is packed; say where to write them.")
        return None
    target, url = (str(name).rstrip("/") for name in (config.shards, config.shards_url or config.shards))
    target, url = (name if "://" in name else str(Path(name).expanduser().resolve()) for name in (target, url))
    return ShardWriter(target, url, out / "shards", round(config.shard_gb * 1e9))


def write_source(
    source: "RecordSource", out: Path, pool: ProcessPoolExecutor, timeout: float, shards: "ShardWriter | None"
) -> "PlanTable":
    """Return the tables of a source; those that hold still are left as they are."""
    from omnihuman.data.plan.fingerprint import PLANNING_CODE, hash_code
    from omnihuman.data.plan.headers import HeaderStore
    from omnihuman.data.plan.index import Index
    from omnihuman.data.plan.planning import probe_file
    from omnihuman.data.plan.record_tables import write_records
    from omnihuman.data.plan.source_plans import describe_source, name_headers
    from omnihuman.data.plan.tables import TableWriter

    index = Index(out / "records")
    key = {"source": describe_source(source), "code": hash_code(*PLANNING_CODE), "shards": shards and shards.url}
    probe_one = partial(probe_file, timeout=timeout, policy="skip")

    def probe(files: Iterable[Path]) -> dict[Path, "Outcome"]:
        files = list(files)
        return dict(zip(files, pool.map(probe_one, files, chunksize=FILES_AT_ONCE), strict=True))

    def write(writer: TableWriter) -> None:
        write_records(writer, source.records(), HeaderStore(out / "headers" / name_headers(), probe), key, shards)

    return index.get(key, write)


def write_manifest(out: Path, sources: "Sequence[RecordSource]", tables: "Sequence[PlanTable]") -> None:
    """Write the list of bad rows and the manifest, and delete tables that only the earlier manifest names."""
    from omnihuman.data.plan.record_tables import BAD_ROWS, MANIFEST

    with (out / BAD_ROWS).open("w") as lines:
        for source, table in zip(sources, tables, strict=True):
            for row in table.report.skipped:
                lines.write(json.dumps({"records": source.location, **row}) + "\n")
    names = [table.folder.relative_to(out).as_posix() for table in tables]
    manifest: dict[str, Any] = {
        "tables": names,
        "records": [source.location for source in sources],
        "num_records": [len(table) for table in tables],
    }
    file = out / MANIFEST
    earlier = json.loads(file.read_text())["tables"] if file.is_file() else []
    partial_file = file.with_suffix(".partial")
    partial_file.write_text(json.dumps(manifest, indent=2) + "\n")
    partial_file.replace(file)
    for name in set(earlier) - set(names):
        shutil.rmtree(out / name, ignore_errors=True)


def describe(tables: "Iterable[PlanTable]") -> str:
    """Return what tables hold in words."""
    totals = Counter[str]()
    for table in tables:
        totals.update(table.count_media())
    hours = totals["seconds"] / 3600
    tracks = f", {totals['tracks']} with tracks of faces" if totals["tracks"] else ""
    return f"{totals['records']} records{tracks}, {totals['clips']} clips, {hours:.2f} hours"


def describe_bad(tables: "Iterable[PlanTable]") -> str:
    """Return how many rows cannot be used, and why."""
    reasons = Counter[str]()
    for table in tables:
        reasons.update(row["reason"] for row in table.report.skipped)
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{reasons.total()} bad rows ({listed}), see bad.jsonl" if reasons else "no bad row"


if __name__ == "__main__":
    main()
