"""Write: the records of the rows, checked as the training checks them, with their mixture."""

import errno
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from omnihuman.data.record import BadSample, Record, parse_record
from omnihuman.operator.base import TRACKS, Dropped, Failed, Global, Outcome, Row, columns

FOLDER = "records"
"""Folder of the records below ``out``: ``data=<out>/records`` trains on them."""

REPORT = "report.json"
NO_SPLIT = "train"
KINDS = ("video", "audio", "image")


class Write(Global):
    """Rows -> a records folder: ``train.json``, ``val.json``, ``test.json``, ``report.json`` and ``mixture.yaml``.

    A row's records keep all their keys; the clip, its span and the boxes of its faces are those of the row. The code
    that parses records for the training has parsed all of them.

    Args:
        tasks: of the source's records that are written; empty: all; ``null``: none of them.
        instructions: records made of columns, ``[{task: caption, question: Why?, answer: brief_caption}]``; an empty
            answer makes none.
        faces: the records get the tracks of ``faces`` as boxes; without it, the source's records have their own boxes.
        follow_links: accept links in the root that lead out of it.
    """

    reads = columns(records=pa.list_(pa.string()), kind=pa.string(), has_sound=pa.bool_())
    writes = columns(written=pa.list_(pa.string()))
    compares = columns(kind=None)
    decides = columns(num_records=pa.int64())

    def __init__(
        self,
        tasks: Sequence[str] | None = (),
        instructions: Sequence[Mapping[str, str]] = (),
        faces: bool = True,
        follow_links: bool = False,
    ) -> None:
        self.tasks, self.follow_links = tasks, follow_links
        self.instructions = [dict(entry) for entry in instructions]
        for number, entry in enumerate(self.instructions):
            if set(entry) != {"task", "question", "answer"}:
                raise ValueError(f"write: instructions[{number}] is {entry}; expected task, question and answer.")
        answers = [entry["answer"] for entry in self.instructions]
        tracks = {"faces": TRACKS} if faces else {}
        self.reads = dict(self.reads) | dict.fromkeys(answers, pa.string()) | tracks

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            yield self._build(row)

    def _build(self, row: Row) -> Outcome:
        written = []
        for raw in [*self._select(row), *self._make(row)]:
            record = replace_clip(raw, row)
            try:
                self._check(record, row)
            except BadSample as bad:
                return Failed(bad.reason, str(bad))
            written.append(json.dumps(record, ensure_ascii=False))
        if not written:
            return Dropped("no_record", "the source has no record of it that is wanted")
        return {"written": written}

    def _select(self, row: Row) -> list[dict[str, Any]]:
        """Return the source's records that are wanted."""
        if self.tasks is None:
            return []
        records = [json.loads(text) for text in row["records"]]
        return [record for record in records if not self.tasks or record.get("task") in self.tasks]

    def _make(self, row: Row) -> list[dict[str, Any]]:
        """Return the records that are made of columns."""
        tags = {"video": "<video>\n", "image": "<image>\n", "audio": ""}[row["kind"]]
        if row["has_sound"]:
            tags += "<audio>\n"
        records = []
        for entry in self.instructions:
            answer = row[entry["answer"]]
            if answer:
                chat = [{"from": "human", "value": tags + entry["question"]}, {"from": "gpt", "value": answer}]
                records.append({"id": f"{row['id']}_{entry['task']}", "task": entry["task"], "conversations": chat})
        return records

    def _check(self, record: Mapping[str, Any], row: Row) -> Record:
        """Return the record as the training parses it.

        Raises:
            BadSample: it is invalid.
        """
        file: Path = row["file"]
        located = {**record, row["kind"]: file.name}
        name = str(record.get("id"))
        return parse_record(located, name, file.parent, row["source"], follow_links=self.follow_links)

    @property
    def target(self) -> Path:
        """The folder of the records."""
        return self.folder.parent / FOLDER

    def decide(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        root = find_root(self.target, rows)
        counts: list[Outcome] = []
        with RecordsWriter(self.target, root, self.folder.name) as writer:
            for row, texts in zip(rows, self._read_written(), strict=True):
                file = os.path.relpath(row["file"].resolve(), root)
                for text in texts:
                    writer.add(row["split"] or NO_SPLIT, json.loads(text) | {row["kind"]: file})
                counts.append({"num_records": len(texts)})
        return counts

    def _read_written(self) -> Iterator[list[str]]:
        """Yield the records of each live row, of a partition at a time: those of all need not fit into memory."""
        for file in list_parts(self.folder):
            table = pq.read_table(file, columns=["status", "written"])
            yield from table.filter(pc.equal(table["status"], "live"))["written"].to_pylist()

    def is_complete(self, folder: Path) -> bool:
        report = folder.parent / FOLDER / REPORT
        return report.is_file() and json.loads(report.read_bytes()).get("operator") == folder.name


class RecordsWriter:
    """Writes a records folder beside an older one, whose place it takes at the end.

    Args:
        target: the folder.
        root: folder that the media paths of the records are relative to.
        operator: name of the folder of the operator that has made them.
    """

    def __init__(self, target: Path, root: Path, operator: str) -> None:
        self.target, self.root, self.operator = target, root, operator
        self.temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")  # another slice may write as well
        self.files: dict[str, IO[str]] = {}
        self.counts, self.tasks = Counter[str](), Counter[str]()

    def __enter__(self) -> "RecordsWriter":
        self.temporary.mkdir(parents=True)
        return self

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Write a record to the file of its split."""
        if split not in self.files:
            self.files[split] = (self.temporary / f"{split}.json").open("w", encoding="utf-8")
        file = self.files[split]
        file.write((",\n" if self.counts[split] else "[\n") + json.dumps(record, indent=1, ensure_ascii=False))
        self.counts[split] += 1
        if split == NO_SPLIT and record.get("task"):
            self.tasks[str(record["task"])] += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for file in self.files.values():
            file.write("\n]\n")
            file.close()
        if error is None:
            self._finish()
        else:
            shutil.rmtree(self.temporary)

    def _finish(self) -> None:
        root = os.path.relpath(self.root, self.target.resolve())
        report = {"root": root, "records": dict(self.counts), "tasks": dict(self.tasks), "operator": self.operator}
        (self.temporary / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        text = yaml.safe_dump({"tasks": dict.fromkeys(sorted(self.tasks), 1)}, sort_keys=False)
        (self.temporary / "mixture.yaml").write_text(text, encoding="utf-8")
        replace_folder(self.temporary, self.target)


def find_root(target: Path, rows: Iterable[Row]) -> Path:
    """Return the nearest folder that has the records and all media in it."""
    folders = {str(target.resolve())}
    folders.update(str(row["file"].resolve().parent) for row in rows)
    return Path(os.path.commonpath(folders))


def list_parts(folder: Path) -> list[Path]:
    """Return the partitions in the folder of an operator, in their order."""
    return sorted(folder.glob("part-*.parquet"), key=lambda file: int(file.stem.removeprefix("part-")))


def replace_folder(temporary: Path, target: Path) -> None:
    """Put a new folder in the place of an older one, which others may do at the same time."""
    while True:
        old = temporary.with_name(f"{temporary.name}.old")
        with suppress(FileNotFoundError):
            target.rename(old)
        shutil.rmtree(old, ignore_errors=True)
        try:
            temporary.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def replace_clip(raw: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Return a record about the clip of the row, still without its file."""
    record = {key: value for key, value in raw.items() if key not in (*KINDS, "start", "end")}
    if row["start"]:
        record["start"] = row["start"]
    if row["end"] is not None:
        record["end"] = row["end"]
    if row.get("media"):  # a file of its own, whose seconds are others
        record.pop("faces", None)
    if row.get("faces") is not None:
        record["faces"] = _list_boxes(row["faces"], row.get("source_start") or 0.0)
    return record


def _list_boxes(tracks: Sequence[Mapping[str, Any]], start: float) -> list[dict[str, Any]]:
    """Return the boxes of tracks as a record lists them, by their seconds after ``start``."""
    boxes = []
    for track in tracks:
        for time, box in zip(track["times"], track["boxes"], strict=True):
            boxes.append({"time": round(time - start, 3), "box": [round(side, 1) for side in box]})
    return sorted(boxes, key=lambda entry: entry["time"])
