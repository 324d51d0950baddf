"""Planned samples as memory-mapped Arrow tables: one copy for all ranks and workers, read row by row."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnihuman.data.decode.header import Header
from omnihuman.data.machine import sync
from omnihuman.data.plan import codec
from omnihuman.data.plan.planned import Plan, Planned, PlanReport, TaskColumn
from omnihuman.data.plan.stat import stat_file
from omnihuman.data.record import Record
from omnihuman.types import FrameCount

FORMAT = 1
"""Version of the tables; those of another version are made again."""

MANIFEST = "plan.json"
"""File of a folder of tables that names their contents; it is written last."""

IDS_AT_ONCE, ROWS_AT_ONCE = 2**20, 2**12

COLUMN_DTYPES = {"int32": np.int32, "int64": np.int64, "uint64": np.uint64, "double": np.float64}


class ArrowFile:
    """A table that is written batch by batch, as an Arrow IPC file without compression.

    Args:
        file: new.
        columns: name -> Arrow type, such as ``int32`` or ``binary``.
    """

    def __init__(self, file: Path, columns: Mapping[str, str]) -> None:
        import pyarrow

        self.schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in columns.items()])
        self.sink = file.open("wb")
        self.writer = pyarrow.ipc.new_file(self.sink, self.schema)
        self.num_rows = 0

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows."""
        import pyarrow

        if not rows:
            return
        arrays = []
        for field, values in zip(self.schema, zip(*rows, strict=True), strict=True):
            buffers = [None, *map(pyarrow.py_buffer, _to_buffers(values, str(field.type)))]
            arrays.append(pyarrow.Array.from_buffers(field.type, len(rows), buffers))  # ``array`` would import pandas
        self.writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema))
        self.num_rows += len(rows)

    def close(self) -> None:
        """Write the rest to the disk."""
        self.writer.close()
        os.fsync(self.sink.fileno())
        self.sink.close()


def _to_buffers(values: Sequence[Any], kind: str) -> list[Any]:
    """Return the buffers of a column: its numbers, or where each value begins and all values."""
    if kind != "binary":
        return [np.array(values, COLUMN_DTYPES[kind])]
    starts = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=starts[1:])
    return [starts, b"".join(values)]


def open_table(file: Path) -> Any:
    """Return a table whose pages are read when they are needed, and shared by all processes."""
    import pyarrow

    options = pyarrow.ipc.IpcReadOptions(use_threads=False)  # threads would not survive the fork of a worker
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(file)), options=options).read_all()


SAMPLE_COLUMNS = {
    "id": "binary",
    "clip": "int32",  # row of clips.arrow
    "track": "int32",  # row of tracks.arrow, -1 for a record without faces
    "record": "binary",
    "sizes": "binary",  # amounts by field and tokens by slot
}
CLIP_COLUMNS = {
    "file": "binary",
    "seconds": "float64",
    "fps": "float64",
    "num_frames": "int64",
    "height": "int32",  # of an image, 0 of a video
    "width": "int32",
    "audio_start": "float64",
    "audio_end": "float64",
    "header": "binary",
}
FILE_COLUMNS = {"file": "binary", "size": "int64", "mtime_ns": "int64"}
TRACK_COLUMNS = {"faces": "binary"}


class _UniqueRows:
    """A table that has every row once.

    Args:
        file: new.
        columns: of the table.
    """

    def __init__(self, file: Path, columns: Mapping[str, str]) -> None:
        self.table, self.numbers, self.rows = ArrowFile(file, columns), dict[bytes, int](), list[Sequence[Any]]()

    def add(self, key: bytes, build: Callable[[], Sequence[Any]]) -> int:
        """Return the number of a row, which is built and appended if it is new."""
        digest = hashlib.blake2b(key, digest_size=16).digest()
        if digest not in self.numbers:
            self.numbers[digest] = len(self.numbers)
            self.rows.append(build())
        return self.numbers[digest]

    def flush(self) -> None:
        """Write the new rows."""
        self.table.write(self.rows)
        self.rows = []


class TableWriter:
    """Writes planned samples to the tables of a folder.

    Args:
        folder: new; its tables are valid once ``finish`` has written its manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.samples = ArrowFile(folder / "samples.arrow", SAMPLE_COLUMNS)
        self.clips = _UniqueRows(folder / "clips.arrow", CLIP_COLUMNS)
        self.files = _UniqueRows(folder / "files.arrow", FILE_COLUMNS)
        self.tracks = _UniqueRows(folder / "tracks.arrow", TRACK_COLUMNS)
        self.columns: dict[str, list[NDArray[np.int32]]] = {"lengths": [], "targets": [], "tasks": []}
        self.tasks: dict[str | None, int] = {}
        self._last_header: Header | None = None
        self._last_files: tuple[Path, ...] = ()
        self._last_clip = 0
        self.digest, self.content = hashlib.sha256(), hashlib.sha256()

    def add(self, samples: Sequence[Planned]) -> None:
        """Append samples."""
        rows, lines = [], []
        for planned in samples:
            name = planned.record.id.encode(errors="surrogatepass")
            row = (name, self._add_clip(planned), self._add_track(planned), *self._encode(planned))
            self.content.update(repr(row).encode())
            rows.append(row)
            lines.append(b"%s\t%d\t%d\n" % (name, planned.length, planned.targets))
        self.digest.update(b"".join(lines))
        self.samples.write(rows)
        for table in (self.clips, self.files, self.tracks):
            table.flush()
        codes = [self.tasks.setdefault(planned.record.task, len(self.tasks)) for planned in samples]
        self.columns["lengths"].append(np.array([planned.length for planned in samples], np.int32))
        self.columns["targets"].append(np.array([planned.targets for planned in samples], np.int32))
        self.columns["tasks"].append(np.array(codes, np.int32))

    def _encode(self, planned: Planned) -> tuple[bytes, bytes]:
        return codec.encode_record(planned.record), codec.to_json([planned.amounts, planned.counts])

    def _add_clip(self, planned: Planned) -> int:
        record, header = planned.record, planned.header
        if header is self._last_header and record.files == self._last_files:  # another instruction on the same clip
            return self._last_clip
        for file in record.files:
            name = os.fsencode(file)
            self.files.add(name, partial(_describe_file, name))
        name, text = os.fsencode(record.file), codec.encode_header(header)
        number = self.clips.add(name + b"\0" + text, lambda: (name, *_describe_header(header), text))
        self._last_header, self._last_files, self._last_clip = header, record.files, number
        return number

    def _add_track(self, planned: Planned) -> int:
        if planned.record.faces is None:
            return -1
        text = codec.encode_faces(planned.record.faces)
        return self.tracks.add(text, lambda: (text,))

    def finish(self, report: PlanReport, unlisted: Iterable[Mapping[str, Any]], key: Mapping[str, Any]) -> None:
        """Write the columns, the skipped records and the manifest.

        Args:
            report: of the planning.
            unlisted: records whose tasks are not used.
            key: what decides the plan.
        """
        for table in (self.samples, self.clips.table, self.files.table, self.tracks.table):
            table.close()
        for name, parts in self.columns.items():
            with (self.folder / f"{name}.npy").open("wb") as file:
                np.save(file, np.concatenate([np.empty(0, np.int32), *parts]))
                _sync(file)
        facts = asdict(report) | {"stream_notes": list(report.stream_notes)}
        num_skipped = _write_lines(self.folder / "skipped.jsonl", facts.pop("skipped"))
        num_unlisted = _write_lines(self.folder / "unlisted.jsonl", unlisted)
        sizes = {file.name: file.stat().st_size for file in sorted(self.folder.iterdir())}
        manifest = {
            "format": FORMAT,
            "key": dict(key),
            "digest": self.digest.hexdigest()[:16],
            "content": self.content.hexdigest(),
            "num_samples": self.samples.num_rows,
            "tasks": list(self.tasks),
            "num_skipped": num_skipped,
            "num_unlisted": num_unlisted,
            "report": facts,
            "sizes": sizes,
        }
        with (self.folder / MANIFEST).open("w") as text:
            json.dump(manifest, text, default=str)
            _sync(text)
        sync(self.folder)


def _describe_file(name: bytes) -> tuple[Any, ...]:
    return (name, *stat_file(os.fsdecode(name)))


def _describe_header(header: Header) -> tuple[Any, ...]:
    seconds = max(header.audio[1], header.num_frames / header.fps)
    height, width = header.size or (0, 0)
    return seconds, header.fps, header.num_frames, height, width, *header.audio


def _write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with file.open("w") as lines:
        for row in rows:
            lines.write(json.dumps(dict(row)) + "\n")
            count += 1
        _sync(lines)
    return count


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


class JsonLines(Sequence[dict[str, Any]]):
    """The objects of a file of JSON lines, which is read anew every time.

    Args:
        file: of the lines.
        num_lines: of the file.
    """

    def __init__(self, file: Path, num_lines: int) -> None:
        self.file, self.num_lines = file, num_lines

    def __len__(self) -> int:
        return self.num_lines

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.file.open() as lines:
            yield from map(json.loads, lines)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


class PlanTable(Plan):
    """Planned samples in the tables of a folder; a sample is built when it is read.

    Args:
        folder: that a ``TableWriter`` has written.
        quarantine_file: list that a bad file of a sample is added to.

    Attributes:
        key: what decides the plan.
        content: a hash of its samples and their headers.
        unlisted: records whose tasks are not used.

    Raises:
        ValueError: a table is missing, cut off or of another version.
    """

    def __init__(self, folder: Path, quarantine_file: Path | None = None) -> None:
        self.folder, self.quarantine_file = folder, quarantine_file
        manifest = _read_manifest(folder)
        self.key, self.digest, self.content = manifest["key"], manifest["digest"], manifest["content"]
        self.unlisted = JsonLines(folder / "unlisted.jsonl", manifest["num_unlisted"])
        facts = manifest["report"] | {"stream_notes": dict.fromkeys(manifest["report"]["stream_notes"])}
        self.report = PlanReport(list(JsonLines(folder / "skipped.jsonl", manifest["num_skipped"])), **facts)
        self.lengths, self.targets, codes = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("lengths", "targets", "tasks")
        )
        self.tasks = TaskColumn(tuple(manifest["tasks"]), codes)
        self._tables: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "quarantine_file": self.quarantine_file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # tables are mapped anew, not copied

    def _column(self, table: str, name: str) -> Any:
        if table not in self._tables:
            content = open_table(self.folder / f"{table}.arrow")
            self._tables[table] = {column: content.column(column) for column in content.column_names}
        return self._tables[table][name]

    def read(self, index: int) -> Planned:
        clip, track, text, sizes = (
            self._column("samples", name)[index].as_py() for name in ("clip", "track", "record", "sizes")
        )
        faces = None if track < 0 else codec.decode_faces(self._column("tracks", "faces")[track].as_py())
        record = codec.decode_record(text, faces)
        header = codec.decode_header(self._column("clips", "header")[clip].as_py())
        amounts, counts = json.loads(sizes)
        if record.tiling is not None:
            amounts["frames"] = FrameCount(amounts["frames"], record.tiling)
        length, targets = int(self.lengths[index]), int(self.targets[index])
        return Planned(record, header, amounts, counts, length, targets, self.quarantine_file)

    def count_media(self) -> dict[str, float]:
        """Return the numbers of records, of those with tracks of faces, of clips, and the seconds of the clips."""
        seconds = np.concatenate([np.zeros(1), self._column("clips", "seconds").to_numpy()])
        num_tracks = np.count_nonzero(self._column("samples", "track").to_numpy() >= 0)
        totals = {"records": len(self), "tracks": int(num_tracks), "clips": len(seconds) - 1}
        return totals | {"seconds": float(seconds.sum())}

    def iterate_records(self) -> Iterator[Record]:
        """Yield the records in order, each built when it is reached."""
        tracks = self._column("tracks", "faces")
        for start in range(0, len(self), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            texts, numbers = (self._column("samples", name)[rows].to_pylist() for name in ("record", "track"))
            for text, track in zip(texts, numbers, strict=True):
                faces = None if track < 0 else codec.decode_faces(tracks[track].as_py())
                yield codec.decode_record(text, faces)

    def read_ids(self, indices: NDArray[np.int32]) -> list[str]:
        ids = list[str]()
        for start in range(0, len(indices), IDS_AT_ONCE):
            chosen = self._column("samples", "id").take(indices[start : start + IDS_AT_ONCE])
            ids += [name.decode(errors="surrogatepass") for name in chosen.to_pylist()]
        return ids

    def read_files(self) -> list[tuple[bytes, int, int]]:
        """Return name, size and time of every media file when it was planned."""
        columns = [self._column("files", name).to_pylist() for name in FILE_COLUMNS]
        return list(zip(*columns, strict=True))

    def find_changed_file(self) -> Path | None:
        """Return a media file that has changed since the samples were planned, ``None`` if none has."""
        for name, *stat in self.read_files():
            if stat_file(os.fsdecode(name)) != tuple(stat):
                return Path(os.fsdecode(name))
        return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        version = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: no tables of planned samples ({error!r:.80}); delete the folder.") from error
    if version != FORMAT:
        raise ValueError(f"{folder}: tables of version {version}, expected {FORMAT}; delete the folder.")
    for name, size in manifest["sizes"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise ValueError(f"{file}: missing or cut off, expected {size} bytes; delete {folder}.")
    return manifest
