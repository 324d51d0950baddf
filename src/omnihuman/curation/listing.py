"""The listing of a source: the media files that a pipeline begins with, and the records that name them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnihuman.corpus.annotation import annotate_file
from omnihuman.curation.store import build_table, make_id, write_table
from omnihuman.data.files import parse_files, parse_kind
from omnihuman.data.record import BadSample, Entry, Record, parse_record
from omnihuman.operator.base import Columns, Failed, Operator, Outcome, Row
from omnihuman.source.data_juicer import DataJuicerSource
from omnihuman.source.files import FileSource
from omnihuman.source.folder import FolderSource
from omnihuman.source.nemo_curator import NemoCuratorSource
from omnihuman.source.records import RecordsSource
from omnihuman.source.root import find_media_root, read_records_folder
from omnihuman.source.sample import SPLITS, SampleSource

RECORDS: Columns = {"records": pa.list_(pa.string())}
"""The records of a clip as JSON, empty for a clip of a folder."""

CORPUS = Path("data/sample")
"""Folder of the built-in corpus, which the other verbs use as well."""


@dataclass
class Listing(Operator):
    """Reads the files of a source once, for the digests that ids are made of.

    Attributes:
        root: folder of the media.
        entries: a row for each span of a file, in the order of the files.
        partition_size: rows of a partition.
        file: of the entries, a row group for each partition, which the workers read; see ``save``.
    """

    root: Path
    entries: Sequence[Row] = field(repr=False)
    partition_size: int
    file: Path | None = None

    writes = RECORDS
    opens_media = True

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(json.dumps([self._stat(entry), entry], sort_keys=True).encode())
        self.num_rows = len(self.entries)
        self.fingerprint = hashlib.sha256(f"{self.partition_size} {digest.hexdigest()}".encode()).hexdigest()

    def _stat(self, entry: Row) -> list[int]:
        """Return size and time of change of a file, by which a file that was replaced is known."""
        path = self.root / entry["source"]
        if not path.is_file():
            return []
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    @property
    def num_parts(self) -> int:
        """The number of partitions."""
        return -(-self.num_rows // self.partition_size)

    def save(self, folder: Path) -> None:
        """Write the entries to a file, unless it is there, and forget them: a worker gets the numbers of partitions.

        Raises:
            ValueError: the disk is full, or the folder cannot be written.
        """
        file = folder / "listing.parquet"
        if not file.is_file():
            write_table(file, (self._build(part) for part in range(self.num_parts)), {})
        self.file, self.entries = file, ()

    def read(self, part: int) -> pa.Table:
        """Return the rows of a partition, which have no digest yet."""
        assert self.file is not None
        return pq.ParquetFile(self.file).read_row_group(part)

    def _build(self, part: int) -> pa.Table:
        begin = part * self.partition_size
        rows = []
        for entry in self.entries[begin : begin + self.partition_size]:
            place = f"source {entry['source']}"  # of a file that cannot be read
            rows.append(entry | {"id": make_id(place, entry["start"], entry["end"], None), "status": "live"})
        return build_table(rows, {**RECORDS, "problem": pa.list_(pa.string())})

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            yield self._read(row)

    def _read(self, row: Row) -> Outcome:
        if row["problem"]:
            why, detail = row["problem"]
            return Failed(why, detail)
        path = self.root / row["source"]
        if not path.is_file():
            return Failed("missing_file", f"{row['source']}: there is no such file.")
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return {"digest": digest, "records": row["records"]}


def list_source(factory: Callable[..., Any], path: Path | None, root: Path | None, partition_size: int) -> Listing:
    """Return the listing of a source.

    Args:
        factory: of the source, by its path and its root: a folder of media files, records, or the built-in corpus.
        path: of the folder or the records; of the corpus, which is written there if it is missing.
        root: folder of the media; ``None``: the folder itself, or as the records say.
        partition_size: rows of a partition.

    Raises:
        ValueError: there is no such source, or it is empty.
    """
    kind = getattr(factory, "func", factory)
    if kind is SampleSource:
        root = (path or CORPUS).resolve()
        entries = _list_records(_read_sample(factory, root), root)
    elif path is None:
        raise ValueError("path has no value: add path=videos/ (the folder of the media files, or the records).")
    elif kind is FolderSource:
        root = (root or path).resolve()
        entries = _list_folder(path, root)
    elif kind is RecordsSource:
        root = (root or find_media_root(path)).resolve()
        entries = _list_records(_read_files(factory, path, root), root)
    elif kind in (DataJuicerSource, NemoCuratorSource):
        root = (root or (path if path.is_dir() else path.parent)).resolve()
        entries = _list_records(_read_clips(factory(path, root), root), root)
    else:
        name = kind.__module__.rpartition(".")[2]
        raise ValueError(
            f"source={name}: choose folder, records, sample, data_juicer or nemo_curator; of others make records "
            "first: omnihuman records."
        )
    if not entries:
        raise ValueError(f"path={path}: there is no media file in it.")
    return Listing(root, sorted(entries, key=_order), partition_size)


def _order(entry: Row) -> tuple[str, float, float]:
    return entry["source"], entry["start"], entry["end"] or 0.0


def _build_entry(source: str, start: float, end: float | None, split: str | None) -> Row:
    return {"source": source, "start": start, "end": end, "split": split, "records": [], "problem": None}


def _list_folder(path: Path, root: Path) -> list[Row]:
    if not path.is_dir():
        raise ValueError(f"path={path}: there is no such folder.")
    files = FolderSource(path, root).list_files()
    return [_build_entry((path.resolve() / file).relative_to(root).as_posix(), 0.0, None, None) for file in files]


Parsed = tuple[str | None, str, Any, Entry]
"""Split, place, the record as it is written, and parsed."""


def _read_files(factory: Callable[..., Any], path: Path, root: Path) -> Iterator[Parsed]:
    folder = read_records_folder(path)
    files: Mapping[str, Path | None] = {"train": folder.train, "val": folder.val, "test": folder.test}
    for split, file in files.items():
        if file is not None:
            yield from _parse(factory(file, root, text_only=True).source, split if path.is_dir() else None)


def _read_sample(factory: Callable[..., Any], root: Path) -> Iterator[Parsed]:
    """Yield the records of the corpus; the first one of a clip has the boxes of people and the words as well.

    A record of the corpus without boxes of faces is one of a clip without a face.
    """
    annotated = set[Path]()
    for split in SPLITS:
        sample = factory(split, root)
        for _, place, raw, entry in _parse(sample.open(), split):
            if isinstance(entry, Record) and entry.file not in annotated:
                annotated.add(entry.file)
                raw = {"faces": []} | raw | annotate_file(entry.file.name, sample.seed)
            yield split, place, raw, entry


def _read_clips(source: FileSource, root: Path) -> Iterator[Parsed]:
    """Yield the clips of another engine: with a caption they are records, without one files alone."""
    for place, raw in source.entries():
        try:
            if isinstance(raw, BadSample):
                raise raw
            if "conversations" in raw:
                yield None, place, raw, parse_record(raw, place, root, place, **source.options)
                continue
            kind = parse_kind(raw, place, False)
            (file,) = parse_files(raw, kind, root, place, follow_links=False)
            yield None, place, None, Record(place, file, kind, (), ())
        except BadSample as bad:
            yield None, place, raw, (place, bad)


def _parse(source: FileSource, split: str | None) -> Iterator[Parsed]:
    for (place, raw), entry in zip(source.entries(), source.records(), strict=True):
        yield split, place, raw, entry


def _list_records(records: Iterable[Parsed], root: Path) -> list[Row]:
    """Return a row for each span of a file, with all records about it; a record that cannot be used is a row too."""
    rows: dict[tuple[Any, ...], Row] = {}
    for split, place, raw, entry in records:
        problem = _find_problem(entry)
        if problem is not None:
            row = _build_entry(place, 0.0, None, split)
            row["problem"] = problem
            rows[place, split] = row
            continue
        assert isinstance(entry, Record)
        source = entry.file.relative_to(root).as_posix()
        key = (source, entry.start, entry.end, split)
        row = rows.setdefault(key, _build_entry(*key))
        if raw is not None:
            row["records"].append(json.dumps(raw, ensure_ascii=False))
    return list(rows.values())


def _find_problem(entry: Entry) -> tuple[str, str] | None:
    """Return the code and the message of a record that no operator can work on, ``None`` for the others."""
    if not isinstance(entry, Record):
        bad: BadSample = entry[1]
        return bad.reason, str(bad)
    if entry.kind == "text":
        return "no_media", f"{entry.location}: a record of text alone has no clip."
    if len(entry.files) > 1 or entry.file.is_dir():
        return "several_files", f"{entry.location}: a clip is one file; leave records of several files out."
    return None
