"""Records: what a data file says about a sample, checked line by line."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnihuman.types import SLOTS

ROLES = {"human": "user", "gpt": "assistant"}
MEDIA = ("video", "image", "audio")
MODALS = {
    "video_audio": ("video", "audio"),
    "video": ("video",),
    "audio": ("audio",),
    "frames_audio": ("video", "audio"),
    "frames": ("video",),
    "faces_audio": ("video", "audio"),
    "faces": ("video",),
    "text": (),
}
"""Ways of looking at a sample: the slots that may be filled; see ``HIDES`` for what may not be looked at."""

HIDES = {"frames": ("faces",), "frames_audio": ("faces",), "faces": ("frames",), "faces_audio": ("frames",)}
"""View -> what encoders do not get: ``frames`` has no closer look at faces, ``faces`` has nothing else."""

TAGS = {"<video>": "video", "<image>": "video", "<audio>": "audio"}
"""How the text names a slot; a still fills the video slot with one frame."""

ALLOWED_TAGS = {"video": {"<video>", "<audio>"}, "image": {"<image>"}, "audio": {"<audio>"}}
KNOWN = {"id", "conversations", "start", "end", "task", "needs", "faces", "sound", "then", "rate", *MEDIA}
Message = tuple[str, str]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the upright frame."""


class BadSample(ValueError):
    """A sample that cannot be used.

    Attributes:
        reason: a short code that is counted: ``missing_file``, ``truncated``, ``unknown_role`` ...
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))  # crosses from a worker process


@dataclass(frozen=True, slots=True)
class Sighting:
    """The faces at one moment of a record.

    Attributes:
        time: second of the file; ``None`` where the record lists one entry a frame.
        boxes: none where nobody shows a face.
    """

    time: float | None
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as the data file describes it.

    Attributes:
        id: the record's own, or its place in the file.
        file: the medium; one file that is seen, heard, or both, or a folder of numbered pictures that are a video.
        kind: ``video``, ``image`` or ``audio``: what the record calls the file; ``text`` where none is opened.
        messages: (role, text); the slots stand as ``<video>`` (``<image>`` of a still) and ``<audio>``.
        slots: the modalities that the text names.
        start: second at which the clip begins.
        end: second at which it ends, ``None`` for the end of the file.
        task: what kind of question it is, where the record says so.
        needs: modalities without which the question cannot be answered.
        faces: where faces are, ``None`` where the record does not say; without any entry none is looked at.
        source: file and line, for messages.
        meta: everything else in the record; of it ``instruction`` is what encoders of the instruction read instead of
            the text, ``system`` the system turn instead of the model's, and ``prime`` how an answer has begun when it
            is asked for.
        hides: what encoders do not get of the pictures: ``faces`` or ``frames``.
        sound: where its sound is, if not in the file; start and end hold for it, too.
        then: a second file, whose frames follow those of the first, half of them each; without sound.
        then_clip: start and end of the clip in it.
        sound_clip: start and end of the clip that is heard, ``None`` where it is the one that is seen.
        rate: pictures a second of a folder of pictures.
    """

    id: str
    file: Path
    kind: str
    messages: tuple[Message, ...]
    slots: tuple[str, ...]
    start: float = 0.0
    end: float | None = None
    task: str | None = None
    needs: tuple[str, ...] = ()
    faces: tuple[Sighting, ...] | None = None
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    hides: tuple[str, ...] = ()
    sound: Path | None = None
    then: Path | None = None
    then_clip: tuple[float, float | None] = (0.0, None)
    sound_clip: tuple[float, float | None] | None = None
    rate: float = 25.0

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is made of."""
        if self.kind == "text":
            return ()
        return tuple(file for file in (self.file, self.sound, self.then) if file is not None)

    @property
    def heard(self) -> tuple[float, float | None]:
        """Start and end of the clip that is heard."""
        return (self.start, self.end) if self.sound_clip is None else self.sound_clip

    def seen_as(self, modal: str) -> "Record | None":
        r"""The record with only the modalities of a view; ``None`` where nothing is left, or something it needs is not.

        >>> record = Record("1", Path("a.mp4"), "video", (("user", "<video>\n<audio>\nWho?"),), ("video", "audio"))
        >>> record.seen_as("video").messages[0][1]
        '<video>\nWho?'
        """
        kept = tuple(slot for slot in self.slots if slot in MODALS[modal])
        if set(self.needs) - set(kept) or not (kept or modal == "text"):
            return None
        form = self.without(tuple(slot for slot in self.slots if slot not in kept))
        form = replace(form, hides=HIDES.get(modal, ()) if "video" in kept else ())
        return form if kept else replace(form, kind="text")

    def asked(self, modal: str | None, reads: Collection[str], who: str) -> "tuple[Record, tuple[str, ...]]":
        """The record as a model can be asked it, and the slots that it does not read and is asked without.

        Args:
            modal: a view; ``None`` for all that there is.
            reads: the slots that the model fills.
            who: the model's name, for messages.

        Raises:
            ValueError: there is no such view, or neither the file nor the model can give it.
        """
        if modal is not None and modal not in MODALS:
            raise ValueError(f"modal={modal}: choose from {', '.join(MODALS)}, or leave it out.")
        seen = self if modal is None else self.seen_as(modal)
        if seen is None:
            given = "words alone" if self.kind == "text" else f"{self.kind}={self.file}"
            raise ValueError(f"modal={modal} asks for what {given} cannot give.")
        unread = tuple(slot for slot in seen.slots if slot not in reads)
        if unread and (modal is not None or len(unread) == len(seen.slots)):
            raise ValueError(f"{who} reads {' and '.join(sorted(reads))} only, not {' and '.join(unread)}.")
        return seen.without(unread), unread

    def without(self, slots: Sequence[str]) -> "Record":
        """The record with some slots taken out of its text."""
        tags = [tag for tag, slot in TAGS.items() if slot in slots]
        messages = tuple((role, _strip(text, tags)) for role, text in self.messages)
        return replace(self, messages=messages, slots=tuple(slot for slot in self.slots if slot not in slots))


def parse_record(raw: Any, name: str, root: Path, source: str, *, words_alone: bool = False) -> Record:
    """Check one record.

    Args:
        raw: the record.
        name: its id.
        root: folder of the media.
        source: its place, for messages.
        words_alone: it may have no medium; in a data file that is a key mistyped.

    Raises:
        BadSample: something in it does not hold; the message names the place, the key and the cure.
    """
    if not isinstance(raw, dict):
        raise BadSample("malformed_record", f"{source}: a record is an object, this is a {type(raw).__name__}.")
    kinds = [kind for kind in MEDIA if raw.get(kind)]
    messages = _messages(raw.get("conversations"), source)
    if len(kinds) > 1:
        raise BadSample("malformed_record", f"{source}: give one of {', '.join(MEDIA)}, found {', '.join(kinds)}.")
    kind = kinds[0] if kinds else "text" if words_alone else ""
    slots = _slots(messages, kind, source)
    start, end = _times(raw, source)
    needs = raw.get("needs") or []
    if not isinstance(needs, list) or any(need not in SLOTS for need in needs):
        raise BadSample("malformed_record", f"{source}: needs is a list of {', '.join(SLOTS)}; found {needs!r}.")
    if not isinstance(raw.get("task"), str | None):
        raise BadSample("malformed_record", f"{source}: task is a word, found {raw['task']!r}.")
    rate = raw.get("rate", 25.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise BadSample("malformed_record", f"{source}: rate is the pictures a second of a folder, found {rate!r}.")
    sound, then = (
        _inside(root, raw[key], f"{source}: {key}", folders=key == "then") if raw.get(key) else None
        for key in ("sound", "then")
    )
    return Record(
        id=name,
        file=root if kind == "text" else _inside(root, raw[kind], f"{source}: {kind}", folders=kind == "video"),
        kind=kind,
        messages=messages,
        slots=slots,
        start=start,
        end=end,
        task=raw.get("task"),
        needs=tuple(needs),
        faces=sightings(raw.get("faces"), source),
        source=source,
        meta={key: value for key, value in raw.items() if key not in KNOWN},
        rate=float(rate),
        sound=sound,
        then=then,
    )


def sightings(raw: Any, source: str) -> tuple[Sighting, ...] | None:
    """The ``faces`` of a record, checked; ``None`` where it has none.

    Args:
        raw: ``[{"time": s, "box": [x0, y0, x1, y1] or null}, ...]``, where entries of one time are several faces; or
            one box (or null) for every frame of the file.
        source: place of the record, for messages.

    Raises:
        BadSample: something in it does not hold.

    >>> sightings([{"time": 0.5, "box": [1, 2, 3, 4]}], "a.json[0]")
    (Sighting(time=0.5, boxes=((1.0, 2.0, 3.0, 4.0),)),)
    """
    if raw is None:
        return None
    if not isinstance(raw, list):
        raise BadSample("malformed_faces", f"{source}: faces is a list, found {raw!r:.80}.")
    if not all(isinstance(entry, Mapping) for entry in raw):
        return tuple(Sighting(None, _boxes(entry, f"{source}: faces[{n}]")) for n, entry in enumerate(raw))
    found: dict[float, tuple[Box, ...]] = {}
    for number, entry in enumerate(raw):
        time, where = entry.get("time"), f"{source}: faces[{number}]"
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < math.inf:
            raise BadSample("malformed_faces", f"{where} has the time {time!r}; it is the second of the frame.")
        found[float(time)] = found.get(float(time), ()) + _boxes(entry.get("box"), where)
    return tuple(Sighting(time, found[time]) for time in sorted(found))


def _boxes(raw: Any, where: str) -> tuple[Box, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or len(raw) != 4 or not all(isinstance(x, int | float) for x in raw):
        raise BadSample("malformed_faces", f"{where}: a box is [x0, y0, x1, y1] in pixels or null, found {raw!r:.80}.")
    x0, y0, x1, y1 = map(float, raw)
    if not (all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1):
        raise BadSample("malformed_faces", f"{where}: the box {raw} has no area; it is [x0, y0, x1, y1].")
    return ((x0, y0, x1, y1),)


def _times(raw: Mapping[str, Any], source: str) -> tuple[float, float | None]:
    start, end = raw.get("start") or 0.0, raw.get("end")
    seconds = [time for time in (start, end) if time is not None]
    if not all(isinstance(time, int | float) and math.isfinite(time) for time in seconds) or start < 0:
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
    tags = [tag for tag in TAGS if tag in human]
    for tag in TAGS:
        if any(tag in text for role, text in messages if role == "assistant"):
            raise BadSample("placeholder_in_answer", f"{source}: {tag} stands in an answer; move it to a human turn.")
        if human.count(tag) > 1:
            what = f"{source}: {tag} stands {human.count(tag)} times; a record has one file: leave one."
            raise BadSample("placeholder_twice", what)
    if kind in ("", "text"):
        if tags:
            what = f"{source}: the text names {', '.join(tags)}, but the record names no file; add {tags[0][1:-1]!r}."
            raise BadSample("placeholder_without_media", what)
        if kind:
            return ()
        raise BadSample("no_media", f"{source}: give one of {', '.join(MEDIA)}; the record has no medium.")
    if foreign := sorted(set(tags) - ALLOWED_TAGS[kind]):
        what = f"{source}: the text names {', '.join(foreign)}, but the record's file is its {kind!r}."
        raise BadSample("placeholder_without_media", what)
    if not tags:
        what = f"{source}: the record has {kind!r}, but no human turn says where it stands: write <{kind}>."
        raise BadSample("media_without_placeholder", what)
    return tuple(TAGS[tag] for tag in tags)


def _strip(text: str, tags: Sequence[str]) -> str:
    for tag in tags:
        text = text.replace(f"{tag}\n", "").replace(tag, "")
    return text


def _inside(root: Path, name: Any, what: str, folders: bool = False) -> Path:
    """A path below the root, links and dots resolved."""
    try:
        file = (root / str(name)).resolve()
        exists = file.is_file() or (folders and file.is_dir())
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, with a null byte, a loop of links
        raise BadSample("missing_file", f"{what} {name!r}: this is no path ({error}).") from error
    if not file.is_relative_to(root.resolve()):
        raise BadSample("outside_root", f"{what} {name!r} leaves data.root ({root}); paths are relative to it.")
    if not exists:
        raise BadSample("missing_file", f"{what} {name!r}: there is no such file in data.root ({root}).")
    return file
