"""Write: the records of the rows, checked as the training checks them, with their mixture."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from omnihuman.data.record import BadSample, Record, parse_record
from omnihuman.operator.base import TRACKS, Dropped, Failed, Global, Outcome, Row, columns

FOLDER = "records"
"""Folder of the records below ``out``: ``data=<out>/records`` trains on them."""

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
    compares = columns(written=None, kind=None)
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
        splits: dict[str, list[dict[str, Any]]] = {}
        root = Path(os.path.commonpath([self.target.resolve(), *(row["file"].resolve() for row in rows)]))
        for row in rows:
            for text in row["written"]:
                record = json.loads(text)
                record[row["kind"]] = os.path.relpath(row["file"].resolve(), root)
                splits.setdefault(row["split"] or NO_SPLIT, []).append(record)
        self._write(splits, root)
        return [{"num_records": len(row["written"])} for row in rows]

    def _write(self, splits: Mapping[str, Sequence[Mapping[str, Any]]], root: Path) -> None:
        """Write all files to a new folder, which takes the place of an older one at the end."""
        temporary = self.target.with_name(f".{FOLDER}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tasks = Counter[str]()
        for split, records in splits.items():
            _write_json(temporary / f"{split}.json", records)
            if split == NO_SPLIT:
                tasks.update(str(record["task"]) for record in records if record.get("task"))
        counts = {split: len(records) for split, records in splits.items()}
        report = {"root": os.path.relpath(root, self.target.resolve()), "records": counts, "tasks": dict(tasks)}
        _write_json(temporary / "report.json", report)
        text = yaml.safe_dump({"tasks": dict.fromkeys(sorted(tasks), 1)}, sort_keys=False)
        (temporary / "mixture.yaml").write_text(text, encoding="utf-8")
        shutil.rmtree(self.target, ignore_errors=True)
        temporary.rename(self.target)


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


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _list_boxes(tracks: Sequence[Mapping[str, Any]], start: float) -> list[dict[str, Any]]:
    """Return the boxes of tracks as a record lists them, by their seconds after ``start``."""
    boxes = []
    for track in tracks:
        for time, box in zip(track["times"], track["boxes"], strict=True):
            boxes.append({"time": round(time - start, 3), "box": [round(side, 1) for side in box]})
    return sorted(boxes, key=lambda entry: entry["time"])
