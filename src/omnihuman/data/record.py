"""Records: what a data file says about a sample, checked line by line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnihuman.types import SLOTS

ROLES = {"human": "user", "gpt": "assistant"}
MEDIA = ("video", "image", "audio")
MODALS = {"video_audio": ("video", "audio"), "video": ("video",), "audio": ("audio",)}
"""Ways of looking at a sample: the slots that may be filled."""

ALLOWED_TAGS = {"video": {"<video>", "<audio>"}, "image": {"<image>"}, "audio": {"<audio>"}}
KNOWN = {"id", "conversations", "start", "end", "task", "needs", "faces", "meta", *MEDIA}
Message = tuple[str, str]


class BadSample(ValueError):
    """A sample that cannot be used.

    Attributes:
        reason: a short code that is counted: ``missing_file``, ``truncated``, ``unknown_role`` ...
        place: the record's id, or file and line where it has none; empty where the message is about a medium alone.
    """

    def __init__(self, reason: str, message: str, place: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self), self.place)  # crosses from a worker process


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as the data file describes it.

    Attributes:
        id: the record's own, or its place in the file.
        file: the medium; one file that is seen, heard, or both.
        kind: ``video``, ``image`` or ``audio``: what the record calls the file.
        messages: (role, text); the slots stand as ``<video>`` (a still too) and ``<audio>``.
        slots: the modalities that the text names.
        start: second at which the clip begins.
        end: second at which it ends, ``None`` for the end of the file.
        faces: boxes of the main face, as the file gives them.
        task: what kind of question it is, where the record says so.
        needs: modalities without which the question cannot be answered.
        source: file and line, for messages.
        group: number of the data file in the mixture.
        meta: everything else in the record.
    """

    id: str
    file: Path
    kind: str
    messages: tuple[Message, ...]
    slots: tuple[str, ...]
    start: float = 0.0
    end: float | None = None
    faces: tuple[Mapping[str, Any], ...] = ()
    task: str | None = None
    needs: tuple[str, ...] = ()
    source: str = ""
    group: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def only(self, slots: Sequence[str]) -> "Record":
        """The record whose text names no slots but these.

        >>> text = "<video>\\n<audio>\\nWho?"
        >>> record = Record("1", Path("a.mp4"), "video", (("user", text), ("assistant", "A man.")), ("video", "audio"))
        >>> record.only(["video"]).messages[0]
        ('user', '<video>\\nWho?')
        """
        gone = [slot for slot in self.slots if slot not in slots]
        messages = self.messages
        for slot in gone:
            messages = tuple((role, _without(text, slot)) for role, text in messages)
        return replace(self, messages=messages, slots=tuple(slot for slot in self.slots if slot in slots))


@dataclass(frozen=True, slots=True)
class Source:
    """A data file in a mixture.

    Attributes:
        path: ``.json``, ``.jsonl`` or ``.parquet``.
        weight: how often an epoch uses it: 0.5 is a random half, 2 is everything twice.
        tasks: keep only records of these tasks; a record without a task is kept.
    """

    path: Path
    weight: float = 1.0
    tasks: tuple[str, ...] | None = None


def sources_of(records: Any) -> list[Source]:
    """A path, a list of paths or a list of ``{path, weight, tasks}`` as sources."""
    if isinstance(records, str | Path):
        records = [records]
    sources = []
    for entry in records:
        entry = {"path": entry} if isinstance(entry, str | Path) else dict(entry)
        if foreign := sorted(set(entry) - {"path", "weight", "tasks"}) or ("path" not in entry):
            raise ValueError(f"data.records: an entry has path, weight and tasks; {entry} is wrong in {foreign}.")
        weight, tasks = entry.get("weight", 1.0), entry.get("tasks")
        if not isinstance(weight, int | float) or weight < 0:
            raise ValueError(f"data.records: the weight of {entry['path']} is {weight!r}; a number of 0 or more.")
        sources.append(Source(Path(entry["path"]), float(weight), None if tasks is None else tuple(tasks)))
    return sources


def read_records(
    source: Source, root: Path, group: int = 0, implicit_audio: bool = False
) -> Iterator[Record | BadSample]:
    """The records of a data file in order; in the place of a bad one what is wrong with it.

    Reference: HumanOmni's README, "Training on Custom Dataset"; the official loader crashes on most of what is caught.

    Args:
        source: the data file.
        root: folder that all media paths are relative to and may not leave.
        group: the file's number in the mixture.
        implicit_audio: a video whose text names no ``<audio>`` is heard too, as the official loader does it.

    Raises:
        ValueError: the file is missing, of another kind, or no list of records as a whole.
    """
    for place, raw in _raw(source.path):
        if isinstance(raw, BadSample):
            yield raw
            continue
        task = raw.get("task") if isinstance(raw, dict) else None
        if source.tasks is not None and task is not None and task not in source.tasks:
            continue
        name = str(raw.get("id", place)) if isinstance(raw, dict) else place
        try:
            record = parse_record(raw, name, root, place, implicit_audio)
            yield replace(record, group=group)
        except BadSample as bad:
            yield BadSample(bad.reason, str(bad), name)


def _raw(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of every entry."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such data file (data.records).")
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                place = f"{path}:{number}"
                if line.strip():
                    try:
                        yield place, json.loads(line)
                    except json.JSONDecodeError as error:
                        what = f"{place}: malformed JSON ({error.msg} at column {error.colno}); one record a line."
                        yield place, BadSample("malformed_json", what, place)
    elif path.suffix == ".json":
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno}); nothing of the file "
                "can be read: correct that line, or use .jsonl, where a line stands alone."
            ) from error
        if not isinstance(entries, list):
            raise ValueError(f"{path}: a .json data file is one list of records, this is a {type(entries).__name__}.")
        yield from ((f"{path}[{number}]", entry) for number, entry in enumerate(entries))
    elif path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
        rows = parquet.read_table(path).to_pylist()
        yield from ((f"{path}[{n}]", {k: v for k, v in row.items() if v is not None}) for n, row in enumerate(rows))
    else:
        raise ValueError(f"{path}: a data file ends in .json, .jsonl or .parquet.")


def parse_record(raw: Any, name: str, root: Path, source: str, implicit_audio: bool = False) -> Record:
    """Check one record.

    Raises:
        BadSample: something in it does not hold; the message names the place, the key and the cure.
    """
    if not isinstance(raw, dict):
        raise BadSample("malformed_record", f"{source}: a record is an object, this is a {type(raw).__name__}.")
    kinds = [kind for kind in MEDIA if raw.get(kind)]
    messages = _messages(raw.get("conversations"), source)
    if len(kinds) > 1:
        raise BadSample("malformed_record", f"{source}: give one of {', '.join(MEDIA)}, found {', '.join(kinds)}.")
    kind = kinds[0] if kinds else ""
    slots = _slots(messages, kind, source)
    messages = tuple((role, text.replace("<image>", "<video>")) for role, text in messages)
    if implicit_audio and kind == "video" and slots == ("video",):
        slots = ("video", "audio")
        messages = tuple((role, text.replace("<video>", "<video>\n<audio>")) for role, text in messages)
    start, end = _times(raw, source)
    needs = tuple(raw.get("needs") or ())
    if foreign := sorted(set(needs) - set(SLOTS)):
        raise BadSample("malformed_record", f"{source}: needs may hold {', '.join(SLOTS)}; found {foreign}.")
    if not isinstance(raw.get("meta") or {}, dict):
        raise BadSample("malformed_record", f"{source}: meta is an object, found {raw['meta']!r}.")
    return Record(
        id=name,
        file=_inside(root, raw[kind], f"{source}: {kind}"),
        kind=kind,
        messages=messages,
        slots=slots,
        start=start,
        end=end,
        faces=tuple(raw.get("faces") or ()),
        task=raw.get("task"),
        needs=needs,
        source=source,
        meta={key: value for key, value in raw.items() if key not in KNOWN} | (raw.get("meta") or {}),
    )


def _times(raw: Mapping[str, Any], source: str) -> tuple[float, float | None]:
    start, end = raw.get("start") or 0.0, raw.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float | None) or start < 0:
        raise BadSample("malformed_record", f"{source}: start and end are seconds, found {start!r} and {end!r}.")
    if end is not None and end <= start:
        raise BadSample("malformed_record", f"{source}: end {end} does not come after start {start}.")
    return float(start), None if end is None else float(end)


def _messages(turns: Any, source: str) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        what = f"{source}: conversations must be a list of turns, found {turns!r}."
        raise BadSample("missing_conversations", what)
    messages = []
    for number, turn in enumerate(turns):
        role = turn.get("from") if isinstance(turn, dict) else None
        if role not in ROLES:
            raise BadSample("unknown_role", f"{source}: turn {number} is from {role!r}; use human and gpt.")
        if not isinstance(turn.get("value"), str):
            raise BadSample("malformed_record", f"{source}: turn {number} has no text in `value`.")
        if ROLES[role] != ("user", "assistant")[number % 2]:
            raise BadSample("odd_turns", f"{source}: turn {number} is from {role}; human and gpt take turns.")
        messages.append((ROLES[role], turn["value"]))
    if len(messages) % 2:
        raise BadSample("odd_turns", f"{source}: {len(messages)} turns; every human turn needs an answer from gpt.")
    return tuple(messages)


def _slots(messages: Sequence[Message], kind: str, source: str) -> tuple[str, ...]:
    """The modalities that the text names, each once and in a human turn, and that the medium can give."""
    human = "\n".join(text for role, text in messages if role == "user")
    tags = [tag for tag in ("<video>", "<image>", "<audio>") if tag in human]
    for tag in ("<video>", "<image>", "<audio>"):
        if any(tag in text for role, text in messages if role == "assistant"):
            raise BadSample("placeholder_in_answer", f"{source}: {tag} stands in an answer; move it to a human turn.")
        if human.count(tag) > 1:
            what = f"{source}: {tag} stands {human.count(tag)} times; a record has one file: leave one."
            raise BadSample("placeholder_twice", what)
    if not kind:
        if tags:
            what = f"{source}: the text names {', '.join(tags)}, but the record names no file; add {tags[0][1:-1]!r}."
            raise BadSample("placeholder_without_media", what)
        raise BadSample("no_media", f"{source}: give one of {', '.join(MEDIA)}; the record has no medium.")
    if foreign := sorted(set(tags) - ALLOWED_TAGS[kind]):
        what = f"{source}: the text names {', '.join(foreign)}, but the record's file is its {kind!r}."
        raise BadSample("placeholder_without_media", what)
    if not tags:
        what = f"{source}: the record has {kind!r}, but no human turn says where it stands: write <{kind}>."
        raise BadSample("media_without_placeholder", what)
    return tuple("video" if tag == "<image>" else tag[1:-1] for tag in tags)


def _without(text: str, slot: str) -> str:
    return text.replace(f"<{slot}>\n", "").replace(f"<{slot}>", "")


def _inside(root: Path, name: Any, what: str) -> Path:
    """A path below the root, links and dots resolved."""
    file = (root / str(name)).resolve()
    if not file.is_relative_to(root.resolve()):
        raise BadSample("outside_root", f"{what} {name!r} leaves data.root ({root}); paths are relative to it.")
    if not file.is_file():
        raise BadSample("missing_file", f"{what} {name!r}: there is no such file in data.root ({root}).")
    return file
