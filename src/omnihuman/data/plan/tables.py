"""Planned samples as memory-mapped Arrow tables: one copy for all ranks and workers, read row by row."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnihuman.data.plan import codec
from omnihuman.data.plan.arrow import open_table
from omnihuman.data.plan.planned import Plan, Planned, PlanReport, TaskColumn
from omnihuman.data.plan.stat import stat_file
from omnihuman.data.plan.table_writer import FILE_COLUMNS, FORMAT, MANIFEST
from omnihuman.data.record import Record
from omnihuman.types import FrameCount

IDS_AT_ONCE, ROWS_AT_ONCE = 2**20, 2**12


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
        self.lengths, self.targets, codes, self.groups = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("lengths", "targets", "tasks", "groups")
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
        record = self.decode_row(text, track)
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

    def iterate_rows(self) -> Iterator[tuple[bytes, int]]:
        """Yield the records in order as they are stored, each with the row of its faces."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            texts, tracks = (self._column("samples", name)[rows].to_pylist() for name in ("record", "track"))
            yield from zip(texts, tracks, strict=True)

    def decode_row(self, text: bytes, track: int) -> Record:
        """Return the record of a row."""
        faces = None if track < 0 else codec.decode_faces(self._column("tracks", "faces")[track].as_py())
        return codec.decode_record(text, faces)

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
