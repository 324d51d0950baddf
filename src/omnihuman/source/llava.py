"""Conversations of LLaVA-OneVision, LLaVA-Video and Oryx: a list of json files, with the part of each that is used."""

import math
import random
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from omnihuman.data.media import Header, merge_headers
from omnihuman.data.record import BadSample, Entry, Record, parse_record
from omnihuman.modality import KINDS
from omnihuman.source.annotation import AnnotatedRecord, Annotation, AnnotationSource, measure_file, read_header
from omnihuman.source.files import FileSource
from omnihuman.source.json import JsonSource
from omnihuman.source.jsonl import JsonlSource
from omnihuman.source.labels import Labels

READERS: dict[str, type[FileSource]] = {kind.suffix: kind for kind in (JsonSource, JsonlSource)}
STRATEGY = re.compile(r"(?:(first|end|random):(\d+|\d+(?:\.\d+)?%)|all)")
KEYS = ("json_path", "sampling_strategy", "media_folder", "task", "fps")
OWN_KEYS = ("question", "questions", "options", "system")
"""Options of other data sets, whose clips have no conversations of their own."""


@dataclass(frozen=True, slots=True)
class MixtureFile:
    """An entry of a list.

    Attributes:
        place: for messages.
        json_path: of its records.
        sampling_strategy: ``all``, or ``first``, ``end`` or ``random`` with a number of records or a share: ``end:9%``.
        media_folder: below the root, that the paths of its media are relative to.
        task: of records that name none.
        fps: of videos that are folders of images.
    """

    place: str
    json_path: str
    sampling_strategy: str = "all"
    media_folder: str = "."
    task: str | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """An entry of a json file: its id, its place, and its content or why that cannot be used."""

    name: str
    place: str
    raw: Any


class LlavaSource(AnnotationSource):
    """The records of a list of json files, or of one such file, in order; all are training records.

    Reference: LLaVA-NeXT ``train.py``, ``LazySupervisedDataset``, and ``scripts/train/onevision.yaml``.
    Differs from it: ``random`` draws by a seed and keeps the order, ``end:0`` is no record, and a bad record is
    counted, not replaced by the next one.

    Args:
        path: ``.yaml`` with ``datasets: [{json_path, sampling_strategy}]``, or a ``.json`` or ``.jsonl`` file.
        root: folder that all media paths are relative to and may not leave.
        json_folder: of the json files; ``None``: that of the list. A path of the list that does not exist, such as that
            of its authors' disk, is looked for below it by its last names.
        task: of the records, where neither they nor the list names one.
        draw_seed: of ``random``.
        follow_links: accept links in the root to files outside.
        add_audio: a video whose text has no ``<audio>`` gets one, as in HumanOmni's loader.
        extra: ``question``, ``questions``, ``options`` and ``system`` must be ``None``: records have their own.

    Raises:
        ValueError: one of these is given.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        json_folder: str | None = None,
        task: str = "general",
        draw_seed: int = 0,
        follow_links: bool = False,
        add_audio: bool = False,
        **extra: Any,
    ) -> None:
        super().__init__(path, root, task=task, follow_links=follow_links)
        for key, value in extra.items():
            if value is not None or key not in OWN_KEYS:
                raise ValueError(f"{key}={value!r:.80}: the records have conversations of their own; leave {key} out.")
        self.json_folder = self.path.parent if json_folder is None else Path(json_folder).expanduser()
        self.draw_seed, self.add_audio, self.has_text_only = draw_seed, add_audio, True

    def records(self) -> Iterator[Entry]:
        for conversation in self.conversations():
            try:
                yield self._parse(conversation)
            except BadSample as bad:
                yield conversation.name, bad

    def annotations(self) -> Iterator[Annotation]:
        _, items = self.annotate()
        yield from (item.annotation for item in items)

    def annotate(self) -> tuple[Labels, list[AnnotatedRecord]]:
        if not self.root.is_dir():
            raise ValueError(f"root={self.root}: there is no such folder.")
        conversations = list(self.conversations())
        parsed: list[Record | BadSample] = []
        for conversation in conversations:
            try:
                parsed.append(self._parse(conversation))
            except BadSample as bad:
                parsed.append(bad)
        files: dict[Path, None] = {}
        for record in parsed:
            files.update(dict.fromkeys(record.files) if isinstance(record, Record) else {})
        with ThreadPoolExecutor(8) as pool:
            headers = dict(zip(files, pool.map(read_header, files), strict=True))
        items = []
        for conversation, record in zip(conversations, parsed, strict=True):
            items.append(_build_item(conversation, record, headers))
        return Labels(None), items

    def conversations(self) -> Iterator[Conversation]:
        """Yield the selected entries of all files, with the paths and the task of the list.

        Raises:
            ValueError: the list or a file cannot be read.
        """
        num_all = num_selected = 0
        files = self._list_files()
        for number, file in enumerate(files):
            path = self._find_json(file.json_path)
            if path is None:
                message = f"{file.place}: {file.json_path}: there is no such file, nor one of its last names below"
                error = BadSample("missing_json", f"{message} {self.json_folder} (json_folder).")
                yield Conversation(str(number), file.place, error)
                continue
            entries = list(self._read_json(path))
            selected = select_entries(len(entries), file, self.draw_seed)
            num_all, num_selected = num_all + len(entries), num_selected + len(selected)
            for index in selected:
                place, raw = entries[index]
                name = f"{number}/{path.stem}/{index}" if len(files) > 1 else f"{path.stem}/{index}"
                yield Conversation(name, place, self._complete(raw, name, file))
        self.notes.append(f"{num_selected} of {num_all} records of {len(files)} files are selected")

    def _list_files(self) -> list[MixtureFile]:
        if self.path.suffix not in (".yaml", ".yml"):
            return [MixtureFile(str(self.path), self.path.name)]
        return read_mixture(self.path)

    def _find_json(self, json_path: str) -> Path | None:
        """Return the file of a path as a list names it, which may be one of another disk; ``None`` if there is none."""
        path = Path(json_path).expanduser()
        candidates = [self.json_folder / path]  # an absolute path stays as it is
        candidates += [self.json_folder.joinpath(*path.parts[start:]) for start in range(1, len(path.parts))]
        return next((file for file in candidates if file.is_file()), None)

    def _read_json(self, path: Path) -> Iterator[tuple[str, Any]]:
        reader = READERS.get(path.suffix)
        if reader is None:
            raise ValueError(f"{path}: unknown file of a mixture; expected {' or '.join(READERS)}.")
        return reader(path, self.root).entries()

    def _complete(self, raw: Any, name: str, file: MixtureFile) -> Any:
        """Return an entry as a record, with its own id: those of the data sets repeat."""
        if not isinstance(raw, dict):
            return raw
        record: dict[str, Any] = {**raw, "id": name, "task": raw.get("task") or file.task or self.task}
        for kind in KINDS:
            paths = raw.get(kind)
            if isinstance(paths, str):
                record[kind] = _join(file.media_folder, paths)
            elif isinstance(paths, list):
                record[kind] = [_join(file.media_folder, path) if isinstance(path, str) else path for path in paths]
        if file.fps is not None and "video" in raw:
            record.setdefault("fps", file.fps)
        return record

    def _parse(self, conversation: Conversation) -> Record:
        if isinstance(conversation.raw, BadSample):
            raise conversation.raw
        return parse_record(
            conversation.raw,
            conversation.name,
            self.root,
            conversation.place,
            allow_text_only=True,
            follow_links=self.follow_links,
            add_audio=self.add_audio,
        )


def read_mixture(path: Path) -> list[MixtureFile]:
    """Return the entries of a list of json files.

    Raises:
        ValueError: it cannot be read, or an entry is invalid.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: the list cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no yaml file ({' '.join(str(error).split())}).") from error
    entries = content.get("datasets") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: expected datasets: [{{json_path: a.json, sampling_strategy: all}}, ...].")
    return [_parse_file(entry, f"{path}: datasets[{number}]") for number, entry in enumerate(entries)]


def _parse_file(entry: Any, place: str) -> MixtureFile:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("json_path"), str):
        raise ValueError(f"{place} is {entry!r:.80}; expected {{json_path: <file>, sampling_strategy: all}}.")
    if unknown := [key for key in entry if key not in KEYS]:
        raise ValueError(f"{place}: unknown key {unknown[0]}; expected {', '.join(KEYS)}.")
    strategy, fps = entry.get("sampling_strategy", "all"), entry.get("fps")
    if not isinstance(strategy, str) or not STRATEGY.fullmatch(strategy):
        raise ValueError(
            f"{place}: sampling_strategy is {strategy!r:.80}; expected all, or first, end or random with a number of "
            "records or a share, as first:1000 or end:20%."
        )
    is_number = isinstance(fps, int | float | None) and not isinstance(fps, bool)
    if not is_number or not all(isinstance(entry.get(key, ""), str) for key in ("media_folder", "task")):
        raise ValueError(f"{place}: media_folder and task are texts, fps is a number.")
    return MixtureFile(place, **entry)


def select_entries(num_entries: int, file: MixtureFile, seed: int = 0) -> list[int]:
    """Return the indices of the entries that a strategy selects, in order.

    >>> select_entries(9, MixtureFile("a.yaml", "a.json", "first:30%")), select_entries(9, MixtureFile("", "", "end:2"))
    ([0, 1, 2], [7, 8])
    """
    match = STRATEGY.fullmatch(file.sampling_strategy)
    assert match is not None
    kind, amount = match.groups()
    if kind is None:
        return list(range(num_entries))
    count = math.ceil(float(amount[:-1]) * num_entries / 100) if amount.endswith("%") else int(amount)
    count = min(count, num_entries)
    if kind == "random":
        return sorted(random.Random(f"{seed}/{file.json_path}").sample(range(num_entries), count))
    start = num_entries - count if kind == "end" else 0
    return list(range(start, start + count))


def _join(folder: str, path: str) -> str:
    return path if folder == "." else str(PurePosixPath(folder) / path)


def _build_item(
    conversation: Conversation, record: Record | BadSample, headers: Mapping[Path, Header | BadSample]
) -> AnnotatedRecord:
    """Return a conversation with its length, or with the reason why it cannot be used."""
    annotation = Annotation(conversation.place, split="train")
    if isinstance(record, BadSample):
        message = str(record).replace("data.source.", "source.").replace("data.root", "root")
        return AnnotatedRecord(annotation, error=BadSample(record.reason, message))
    try:
        header = merge_headers(record, headers)
    except BadSample as bad:
        error = BadSample(bad.reason, f"{conversation.place}: {bad}")
        return AnnotatedRecord(annotation, error=error)
    answers = "\n".join(text for _, text in record.messages[1:])
    annotation = Annotation(conversation.place, answers, split="train")
    length = measure_file(header)
    end = length if record.end is None else min(record.end, length)
    seconds = end - record.start if end > record.start else None
    return AnnotatedRecord(annotation, conversation.raw, seconds=seconds)
