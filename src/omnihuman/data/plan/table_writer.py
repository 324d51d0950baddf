"""Planned samples -> the rows of their tables, and the tables."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnihuman.data.decode.header import Header
from omnihuman.data.machine import sync
from omnihuman.data.plan import codec
from omnihuman.data.plan.arrow import ArrowFile
from omnihuman.data.plan.planned import Planned, PlanReport
from omnihuman.data.plan.stat import stat_file
from omnihuman.data.sharing import hash_part, select_part

FORMAT = 2
"""Version of the tables; those of another version are made again."""

MANIFEST = "plan.json"
"""File of a folder of tables that names their contents; it is written last."""

ROWS_AT_ONCE = 4096
"""Of a batch of a table."""

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
COLUMNS = {"lengths": np.int32, "targets": np.int32, "tasks": np.int32, "groups": np.uint64}
"""Arrays beside the tables, with a number for each sample."""

TRACK_COLUMNS = {"faces": "binary"}


@dataclass(frozen=True, slots=True)
class ClipRow:
    """The files of a sample, and their header.

    Attributes:
        files: all names.
        row: of the table of clips.
    """

    files: tuple[bytes, ...]
    row: tuple[Any, ...]


class SampleRow(NamedTuple):
    """A planned sample as bytes, as one process makes it for the table that another one writes.

    Attributes:
        id: of the record.
        record: without its faces.
        sizes: amounts by field and tokens by slot.
        faces: of the record, ``None`` without any.
        clip: one object for all samples of a clip that follow each other.
        length: tokens.
        targets: supervised tokens.
        task: of the record.
        group: of samples of the same part of a clip, see ``sharing.hash_part``.
    """

    id: bytes
    record: bytes
    sizes: bytes
    faces: bytes | None
    clip: ClipRow
    length: int
    targets: int
    task: str | None
    group: int


def encode_samples(samples: Iterable[Planned]) -> list[SampleRow]:
    """Return samples as bytes."""
    rows = list[SampleRow]()
    header: Header | None = None
    files: tuple[Path, ...] = ()
    sizes: dict[Any, bytes] = {}
    part, group = None, 0
    for planned in samples:
        record = planned.record
        if planned.header is not header or record.files != files:  # not another instruction on the clip
            header, files = planned.header, record.files
            clip = _encode_clip(planned)
        amounts = (*planned.amounts.items(), *planned.counts.items())
        if amounts not in sizes:
            sizes[amounts] = codec.to_json([planned.amounts, planned.counts])
        name = record.id.encode(errors="surrogatepass")
        faces = None if record.faces is None else codec.encode_faces(record.faces)
        text = codec.encode_record(record)
        if part != select_part(record):
            part, group = select_part(record), hash_part(record)
        numbers = (planned.length, planned.targets, record.task, group)
        rows.append(SampleRow(name, text, sizes[amounts], faces, clip, *numbers))
    return rows


def _encode_clip(planned: Planned) -> ClipRow:
    header = planned.header
    seconds = max(header.audio[1], header.num_frames / header.fps)
    height, width = header.size or (0, 0)
    name, text = os.fsencode(planned.record.file), codec.encode_header(header)
    row = (name, seconds, header.fps, header.num_frames, height, width, *header.audio, text)
    return ClipRow(tuple(map(os.fsencode, planned.record.files)), row)


class _UniqueRows:
    """A table that has every row once.

    Args:
        file: new.
        columns: of the table.
    """

    def __init__(self, file: Path, columns: Mapping[str, str]) -> None:
        self.table, self.numbers, self.rows = ArrowFile(file, columns), dict[bytes, int](), list[Sequence[Any]]()

    def add(self, key: bytes, build: Callable[[], Sequence[Any]]) -> tuple[int, bool]:
        """Return the number of a row, and whether it is new; then it is built and appended."""
        digest = hashlib.blake2b(key, digest_size=16).digest()
        is_new = digest not in self.numbers
        if is_new:
            self.numbers[digest] = len(self.numbers)
            self.rows.append(build())
        return self.numbers[digest], is_new

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
        self.columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self.tasks: dict[str | None, int] = {}
        self._pending = list[SampleRow]()
        self._last_clip: tuple[ClipRow | None, int] = (None, 0)
        self.digest, self.content = hashlib.sha256(), hashlib.sha256()

    def add(self, rows: Sequence[SampleRow]) -> None:
        """Append samples. The tables do not depend on how many are added at once."""
        self._pending += rows
        while len(self._pending) >= ROWS_AT_ONCE:
            self._write(self._pending[:ROWS_AT_ONCE])
            del self._pending[:ROWS_AT_ONCE]

    def _write(self, samples: Sequence[SampleRow]) -> None:
        rows, lines, contents = [], [], []
        for sample in samples:
            clip, track = self._add_clip(sample.clip), self._add_track(sample.faces)
            rows.append((sample.id, clip, track, sample.record, sample.sizes))
            lines.append(b"%s\t%d\t%d\n" % (sample.id, sample.length, sample.targets))
            contents.append(b"%d %d %s\n%s\n" % (clip, track, sample.record, sample.sizes))
        self.digest.update(b"".join(lines))
        self.content.update(b"".join(contents))
        self.samples.write(rows)
        for table in (self.clips, self.files, self.tracks):
            table.flush()
        codes = [self.tasks.setdefault(sample.task, len(self.tasks)) for sample in samples]
        self.columns["lengths"].append(np.array([sample.length for sample in samples], np.int32))
        self.columns["targets"].append(np.array([sample.targets for sample in samples], np.int32))
        self.columns["tasks"].append(np.array(codes, np.int32))
        self.columns["groups"].append(np.array([sample.group for sample in samples], np.uint64))

    def _add_clip(self, clip: ClipRow) -> int:
        last, number = self._last_clip
        if clip is last:
            return number
        for name in clip.files:
            self.files.add(name, partial(_describe_file, name))
        name, *_, header = clip.row
        number, is_new = self.clips.add(name + b"\0" + header, lambda: clip.row)
        if is_new:
            self.content.update(header)
        self._last_clip = (clip, number)
        return number

    def _add_track(self, faces: bytes | None) -> int:
        if faces is None:
            return -1
        number, is_new = self.tracks.add(faces, lambda: (faces,))
        if is_new:
            self.content.update(faces)
        return number

    def finish(self, report: PlanReport, unlisted: Iterable[Mapping[str, Any]], key: Mapping[str, Any]) -> None:
        """Write the columns, the skipped records and the manifest.

        Args:
            report: of the planning.
            unlisted: records whose tasks are not used.
            key: what decides the plan.
        """
        self._write(self._pending)
        for table in (self.samples, self.clips.table, self.files.table, self.tracks.table):
            table.close()
        for name, parts in self.columns.items():
            with (self.folder / f"{name}.npy").open("wb") as file:
                np.save(file, np.concatenate([np.empty(0, COLUMNS[name]), *parts]))
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
