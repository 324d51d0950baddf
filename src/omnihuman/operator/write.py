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

from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.plan.record_tables import MANIFEST, Packing
from omnihuman.data.plan.write_index import write_index
from omnihuman.data.record import BadSample, Record, parse_record
from omnihuman.operator.base import TRACKS, Dropped, Failed, Global, Outcome, Row, columns
from omnihuman.operator.filter import find_broken, parse_conditions
from omnihuman.source.records import RecordsSource
from omnihuman.source.root import VALIDATION_INDEX, read_records_folder

FOLDER = "records"
"""Folder of the records below ``out``: ``data=<out>/records`` trains on them."""

INDEX = "index"
"""Folder of their index."""

PROBE_SECONDS = 60.0
"""For the header of a media file."""

REPORT = "report.json"
NO_SPLIT = "train"
SUBSET = "subset"
"""Key of the records that names their subset."""

KINDS = ("video", "audio", "image")


class Write(Global):
    """Rows -> a records folder: ``train.json``, ``val.json``, ``test.json``, ``report.json`` and ``mixture.yaml``.

    A row's records keep all their keys; the clip, its span and the boxes of its faces are those of the row. The code
    that parses records for the training has parsed all of them.

    Args:
        tasks: of the source's records that are written; empty: all; ``null``: none of them.
        instructions: records made of columns, ``[{task: caption, question: Why?, answer: brief_caption}]``, where an
            empty answer makes none and several texts are joined by commas; or of questions with their answers,
            ``[{task: face, pairs: face_instructions_pairs}]``. ``needs: [video]`` is that of the records, and ``where``
            has the conditions of the rows, as in ``filter``.
        subsets: parts of the records that have a records folder of their own as well, ``records/<name>``:
            ``[{name: sre, where: [{column: score, least: 5}]}]``. A row belongs to the first subset whose conditions it
            fulfils, and is dropped without one.
        weights: task -> how often its records are used in an epoch, in ``mixture.yaml``; 1 for other tasks.
        faces: the records get the tracks of ``faces`` as boxes; without it, the source's records have their own boxes.
        follow_links: accept links in the root that lead out of it.
        index: write an index of the records as well, for ``data=index data.index=<out>/index``.
        shard_gb: 10^9 bytes of the tar files into which the index packs the media; ``null``: they stay where they are.

    Raises:
        ValueError: an instruction or a subset has other keys, or there are shards without an index.
    """

    reads = columns(records=pa.list_(pa.string()), kind=pa.string(), has_sound=pa.bool_())
    writes = columns(written=pa.list_(pa.string()))
    compares = columns(kind=None)
    decides = columns(num_records=pa.int64())

    def __init__(
        self,
        tasks: Sequence[str] | None = (),
        instructions: Sequence[Mapping[str, Any]] = (),
        subsets: Sequence[Mapping[str, Any]] = (),
        weights: Mapping[str, float] | None = None,
        faces: bool = True,
        follow_links: bool = False,
        index: bool = False,
        shard_gb: float | None = None,
    ) -> None:
        self.tasks, self.follow_links, self.weights = tasks, follow_links, dict(weights or {})
        self.index, self.shard_gb = index, shard_gb
        if shard_gb is not None and not (index and shard_gb > 0):
            raise ValueError(f"write: shard_gb={shard_gb}: expected a number above 0, and index=true.")
        self.instructions = [dict(entry) for entry in instructions]
        self.subsets = [dict(entry) for entry in subsets]
        read = dict.fromkeys(_parse_instructions(self.instructions) + _parse_subsets(self.subsets))
        self.reads = read | dict(self.reads) | ({"faces": TRACKS} if faces else {})

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            yield self._build(row)

    def _build(self, row: Row) -> Outcome:
        written = []
        matching = [entry["name"] for entry in self.subsets if find_broken(row, entry["where"]) is None]
        if self.subsets and not matching:
            return Dropped("no_subset", "it fulfils the conditions of none of the subsets")
        for raw in [*self._select(row), *self._make(row)]:
            record = replace_clip(raw, row)
            if matching:
                record[SUBSET] = matching[0]
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
        records: list[dict[str, Any]] = []
        for entry in self.instructions:
            if find_broken(row, entry.get("where", ())) is not None:
                continue
            for question, answer in _list_pairs(row, entry):
                chat = [{"from": "human", "value": tags + question}, {"from": "gpt", "value": answer}]
                record = {"id": f"{row['id']}_{len(records)}_{entry['task']}", "task": entry["task"]}
                needs = {"needs": entry["needs"]} if "needs" in entry else {}
                records.append(record | needs | {"conversations": chat})
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
        subsets = [entry["name"] for entry in self.subsets]
        with RecordsWriter(self.target, root, self.folder.name, self.weights, subsets) as writer:
            for row, texts in zip(rows, self._read_written(), strict=True):
                file = os.path.relpath(row["file"].resolve(), root)
                for text in texts:
                    writer.add(row["split"] or NO_SPLIT, json.loads(text) | {row["kind"]: file})
                counts.append({"num_records": len(texts)})
        if self.index and any(count["num_records"] for count in counts if isinstance(count, dict)):
            index_records(self.target, self.folder.parent / INDEX, self.shard_gb)
        return counts

    def _read_written(self) -> Iterator[list[str]]:
        """Yield the records of each live row, of a partition at a time: those of all need not fit into memory."""
        for file in list_parts(self.folder):
            table = pq.read_table(file, columns=["status", "written"])
            yield from table.filter(pc.equal(table["status"], "live"))["written"].to_pylist()

    def is_complete(self, folder: Path) -> bool:
        report = folder.parent / FOLDER / REPORT
        if not report.is_file() or json.loads(report.read_bytes()).get("operator") != folder.name:
            return False
        return not self.index or (folder.parent / INDEX / MANIFEST).is_file()


class RecordsWriter:
    """Writes a records folder beside an older one, whose place it takes at the end, with folders of its subsets.

    Args:
        target: the folder.
        root: folder that the media paths of the records are relative to.
        operator: name of the folder of the operator that has made them.
        weights: task -> how often its records are used; 1 for other tasks.
        subsets: names of the subsets, each a folder of its own as well.
    """

    def __init__(
        self, target: Path, root: Path, operator: str, weights: Mapping[str, float], subsets: Sequence[str]
    ) -> None:
        self.target, self.root, self.operator, self.weights = target, root, operator, weights
        self.temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")  # another slice may write as well
        self.files: dict[str, IO[str]] = {}
        self.counts = {folder: Counter[str]() for folder in ("", *subsets)}
        self.tasks = {folder: Counter[str]() for folder in ("", *subsets)}

    def __enter__(self) -> "RecordsWriter":
        for folder in self.counts:
            (self.temporary / folder).mkdir(parents=True)
        return self

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Write a record to the file of its split, and to that of its subset."""
        text = json.dumps(record, indent=1, ensure_ascii=False)
        folders = [folder for folder in self.counts if folder in ("", record.get(SUBSET))]
        for folder in folders:
            name = os.path.join(folder, f"{split}.json")
            if name not in self.files:
                self.files[name] = (self.temporary / name).open("w", encoding="utf-8")
            self.files[name].write((",\n" if self.counts[folder][split] else "[\n") + text)
            self.counts[folder][split] += 1
            if split == NO_SPLIT and record.get("task"):
                self.tasks[folder][str(record["task"])] += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for file in self.files.values():
            file.write("\n]\n")
            file.close()
        if error is None:
            self._finish()
        else:
            shutil.rmtree(self.temporary)

    def _finish(self) -> None:
        for folder, counts in self.counts.items():
            tasks = self.tasks[folder]
            root = os.path.relpath(self.root, self.target.resolve() / folder)
            report = {"root": root, "records": dict(counts), "tasks": dict(tasks), "operator": self.operator}
            (self.temporary / folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            weights = {task: self.weights.get(task, 1) for task in sorted(tasks)}
            text = yaml.safe_dump({"tasks": weights}, sort_keys=False)
            (self.temporary / folder / "mixture.yaml").write_text(text, encoding="utf-8")
        replace_folder(self.temporary, self.target)


def _parse_instructions(instructions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns that instructions read.

    Raises:
        ValueError: one has other keys.
    """
    columns = []
    for number, entry in enumerate(instructions):
        keys = set(entry) - {"where", "needs"}
        if keys not in ({"task", "question", "answer"}, {"task", "pairs"}):
            raise ValueError(
                f"write: instructions[{number}] is {dict(entry)}; expected task, question and answer, or task and "
                "pairs, and where or needs."
            )
        conditions = parse_conditions(entry.get("where", ()), f"write: instructions[{number}].where")
        columns += [entry.get("pairs") or entry["answer"], *(condition["column"] for condition in conditions)]
    return columns


def _parse_subsets(subsets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns that subsets read.

    Raises:
        ValueError: one has other keys, or a name that is no name of a folder.
    """
    columns = []
    for number, entry in enumerate(subsets):
        if set(entry) != {"name", "where"} or not str(entry["name"]).isidentifier():
            raise ValueError(f"write: subsets[{number}] is {dict(entry)}; expected name, a word, and where.")
        conditions = parse_conditions(entry["where"], f"write: subsets[{number}].where")
        columns += [condition["column"] for condition in conditions]
    return columns


def _list_pairs(row: Row, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the questions and answers that an instruction makes of a row."""
    if "pairs" in entry:
        return [(pair["question"], pair["answer"]) for pair in row[entry["pairs"]] or []]
    answer = row[entry["answer"]]
    if isinstance(answer, list):
        answer = ", ".join(answer)
    return [(entry["question"], answer)] if answer else []


def index_records(records: Path, out: Path, shard_gb: float | None) -> None:
    """Write the index of a records folder, with its validation records in a folder of their own.

    Args:
        records: the folder.
        out: folder of the index.
        shard_gb: 10^9 bytes of a tar file of the media, which lie below the index; ``None``: no tar files.

    Raises:
        ValueError: no record can be used.
    """
    files = read_records_folder(records)
    packing = None
    if shard_gb is not None:
        target = str((out / "media").resolve())
        packing = Packing(ShardWriter(target, target, out / "shards", round(shard_gb * 1e9)))
    for folder, file in ((out, files.train), (out / VALIDATION_INDEX, files.val)):
        if file is not None and file.is_file():
            write_index([RecordsSource(file)], folder, 1, PROBE_SECONDS, packing)


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
    """Return the boxes of tracks as a record lists them, by their seconds after ``start``, without earlier ones."""
    boxes = []
    for track in tracks:
        for time, box in zip(track["times"], track["boxes"], strict=True):
            if time >= start:
                boxes.append({"time": round(time - start, 3), "box": [round(side, 1) for side in box]})
    return sorted(boxes, key=lambda entry: entry["time"])
