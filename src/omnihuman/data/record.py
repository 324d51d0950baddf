"""Records: the samples of a data file, checked key by key."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnihuman.modality import BY_FIELD, KINDS, SLOTS, TAGS, View, strip_tags, tags_of

ROLES = {"human": "user", "gpt": "assistant"}
"""Role in a data file -> role in a conversation."""

KEYS = {
    "id",
    "conversations",
    "start",
    "end",
    "task",
    "needs",
    "faces",
    "audio_track",
    "second_clip",
    "fps",
    *KINDS,
}
"""Keys of a record; all other keys go into ``meta``."""

Message = tuple[str, str]
Span = tuple[float, float | None]
"""First and last second; ``None`` is the end of the file."""

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
        return type(self), (self.reason, str(self))  # exceptions of two arguments do not unpickle by themselves


@dataclass(frozen=True, slots=True)
class FaceDetection:
    """The faces of one frame.

    Attributes:
        time: second of the frame; ``None`` where the record lists one entry per frame of the file.
        boxes: bounding boxes, empty for a frame without a face.
    """

    time: float | None
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as its data file describes it.

    Attributes:
        id: the record's own, or its place in the file.
        file: a video, audio or image file, or a folder of numbered images that form a video.
        kind: ``video``, ``image`` or ``audio``, the key that names the file; ``text`` for a record without a file.
        messages: (role, text); the text holds the tags of the slots: ``<video>`` (``<image>``) and ``<audio>``.
        slots: slots that the text names.
        start: first second of the clip.
        end: last second of the clip, ``None`` for the end of the file.
        task: kind of question, if the record names one.
        needs: slots without which the question cannot be answered.
        faces: bounding boxes; ``None`` if the record lists none, empty if there is no face to use.
        location: file and line, for messages.
        meta: all other keys. Three have a meaning: ``instruction`` replaces the text for encoders of the instruction,
            ``system`` replaces the model's system prompt, and ``prime`` is the beginning of a generated answer.
        hidden: fields of the sample that encoders do not get, though the slot of the field is in the text.
        audio_track: file with the audio, if it is not in ``file``.
        audio_track_span: span of the audio, if it differs from the clip's.
        second_clip: a second video without audio; its frames follow those of the first, half of the frames each.
        second_clip_span: span of the second video.
        fps: frames per second of a folder of images.
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
    faces: tuple[FaceDetection, ...] | None = None
    location: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    audio_track: Path | None = None
    audio_track_span: Span | None = None
    second_clip: Path | None = None
    second_clip_span: Span = (0.0, None)
    fps: float = 25.0

    @property
    def files(self) -> tuple[Path, ...]:
        """All media files of the record."""
        if self.kind == "text":
            return ()
        return tuple(file for file in (self.file, self.audio_track, self.second_clip) if file is not None)

    @property
    def span(self) -> Span:
        """First and last second of the clip."""
        return self.start, self.end

    @property
    def audio_span(self) -> Span:
        """First and last second of the audio."""
        return self.span if self.audio_track_span is None else self.audio_track_span

    def restrict(self, view: View) -> "Record | None":
        r"""Return the record with the modalities of a view only; ``None`` if nothing or too little is left.

        >>> record = Record("1", Path("a.mp4"), "video", (("user", "<video>\n<audio>\nWho?"),), ("video", "audio"))
        >>> record.restrict(View.parse("VF")).messages[0][1]
        '<video>\nWho?'
        """
        slots = tuple(slot for slot in self.slots if slot in view.slots)
        if set(self.needs) - set(slots):
            return None
        if not slots:
            return None if view else replace(self.drop_slots(self.slots), kind="text", hidden=())
        dropped = tuple(slot for slot in self.slots if slot not in slots)
        return replace(self.drop_slots(dropped), hidden=view.hidden(slots))

    def prepare(self, view: View | None, model_view: View, model_name: str) -> "tuple[Record, tuple[str, ...]]":
        """Return the record as a question for a model, and the slots that it loses as the model cannot fill them.

        Args:
            view: the part of the record to use; ``None`` for all.
            model_view: modalities for which the model has an encoder.
            model_name: for messages.

        Raises:
            ValueError: the view leaves nothing that the record has and the model reads.
        """
        record = self if view is None else self.restrict(view)
        if record is None:
            media = "text alone" if self.kind == "text" else f"{self.kind}={self.file}"
            raise ValueError(f"view={view}: {media} has nothing of it; choose another view, or leave it out.")
        usable = model_view if view is None else view & model_view
        unread = tuple(slot for slot in record.slots if slot not in usable.slots)
        if unread and len(unread) == len(record.slots):
            missing = (view or View.of_kind(self.kind)) - model_view
            raise ValueError(
                f"{model_name} has no encoder for {' and '.join(missing.nouns)}; it reads "
                f"{' and '.join(model_view.nouns)}: choose another file or view."
            )
        return record.drop_slots(unread), unread

    def drop_slots(self, slots: Collection[str]) -> "Record":
        """Return the record with some slots removed from its text."""
        tags = [tag for tag, slot in TAGS.items() if slot in slots]
        return replace(
            self,
            messages=tuple((role, strip_tags(text, tags)) for role, text in self.messages),
            slots=tuple(slot for slot in self.slots if slot not in slots),
            hidden=tuple(name for name in self.hidden if BY_FIELD[name].slot not in slots),
        )


Entry = Record | tuple[str, BadSample]
"""A record, or the id of an invalid one and its error."""


def parse_record(raw: Any, name: str, root: Path, location: str, *, allow_text_only: bool = False) -> Record:
    """Check and convert one record.

    Args:
        raw: the record.
        name: its id.
        root: folder of the media.
        location: its place, for messages.
        allow_text_only: accept a record without a file; in a data file such a record has a mistyped key.

    Raises:
        BadSample: a value is invalid; the message names the place, the key and the cure.
    """
    if not isinstance(raw, dict):
        raise BadSample("malformed_record", f"{location}: a record must be an object, got {type(raw).__name__}.")
    messages = _parse_messages(raw.get("conversations"), location)
    kind = _parse_kind(raw, location, allow_text_only)
    slots = _parse_slots(messages, kind, location)
    start, end = _parse_span(raw, location)
    file = root
    if kind != "text":
        file = _resolve(root, raw[kind], f"{location}: {kind}", allow_folder=kind == "video")
    task = raw.get("task")
    if not isinstance(task, str | None):
        raise BadSample("malformed_record", f"{location}: task must be text, got {task!r}.")
    return Record(
        id=name,
        file=file,
        kind=kind,
        messages=messages,
        slots=slots,
        start=start,
        end=end,
        task=task,
        needs=_parse_needs(raw, location),
        faces=parse_faces(raw.get("faces"), location),
        location=location,
        meta={key: value for key, value in raw.items() if key not in KEYS},
        audio_track=_parse_path(raw, "audio_track", root, location),
        second_clip=_parse_path(raw, "second_clip", root, location, allow_folder=True),
        fps=_parse_fps(raw, location),
    )


def parse_faces(raw: Any, location: str) -> tuple[FaceDetection, ...] | None:
    """Parse the ``faces`` of a record; ``None`` for a record without this key.

    Args:
        raw: ``[{"time": s, "box": [x0, y0, x1, y1] or null}, ...]``, where entries of the same time are several faces;
            or one box (or null) for every frame of the file.
        location: place of the record, for messages.

    Raises:
        BadSample: an entry is invalid.

    >>> parse_faces([{"time": 0.5, "box": [1, 2, 3, 4]}], "a.json[0]")
    (FaceDetection(time=0.5, boxes=((1.0, 2.0, 3.0, 4.0),)),)
    """
    if raw is None:
        return None
    if not isinstance(raw, list):
        raise BadSample("malformed_faces", f"{location}: faces must be a list, got {raw!r:.80}.")
    if not all(isinstance(entry, Mapping) for entry in raw):
        per_frame = [_parse_boxes(entry, f"{location}: faces[{number}]") for number, entry in enumerate(raw)]
        return tuple(FaceDetection(None, boxes) for boxes in per_frame)
    boxes_by_time: dict[float, tuple[Box, ...]] = {}
    for number, entry in enumerate(raw):
        place = f"{location}: faces[{number}]"
        time = entry.get("time")
        if not _is_number(time) or not 0 <= time < math.inf:
            raise BadSample("malformed_faces", f"{place}: time must be the second of the frame, got {time!r}.")
        earlier = boxes_by_time.get(float(time), ())
        boxes_by_time[float(time)] = earlier + _parse_boxes(entry.get("box"), place)
    return tuple(FaceDetection(time, boxes_by_time[time]) for time in sorted(boxes_by_time))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_boxes(raw: Any, place: str) -> tuple[Box, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or len(raw) != 4 or not all(isinstance(side, int | float) for side in raw):
        raise BadSample("malformed_faces", f"{place}: a box is [x0, y0, x1, y1] in pixels or null, got {raw!r:.80}.")
    x0, y0, x1, y1 = map(float, raw)
    is_finite = all(map(math.isfinite, (x0, y0, x1, y1)))
    if not is_finite or x0 >= x1 or y0 >= y1:
        raise BadSample("malformed_faces", f"{place}: the box {raw} has no area; it must be [x0, y0, x1, y1].")
    return ((x0, y0, x1, y1),)


def _parse_kind(raw: Mapping[str, Any], location: str, allow_text_only: bool) -> str:
    """Return the key that names the record's file, or ``text``; the empty string where a file is missing."""
    kinds = [kind for kind in KINDS if raw.get(kind)]
    if len(kinds) > 1:
        raise BadSample("malformed_record", f"{location}: expected one of {', '.join(KINDS)}, got {', '.join(kinds)}.")
    if kinds:
        return kinds[0]
    return "text" if allow_text_only else ""


def _parse_span(raw: Mapping[str, Any], location: str) -> Span:
    start, end = raw.get("start") or 0.0, raw.get("end")
    seconds = [time for time in (start, end) if time is not None]
    if not all(isinstance(time, int | float) and math.isfinite(time) for time in seconds) or start < 0:
        raise BadSample("malformed_record", f"{location}: start and end must be seconds, got {start!r} and {end!r}.")
    if end is None:
        return float(start), None
    if end <= start:
        raise BadSample("malformed_record", f"{location}: end {end} must be greater than start {start}.")
    return float(start), float(end)


def _parse_needs(raw: Mapping[str, Any], location: str) -> tuple[str, ...]:
    needs = raw.get("needs") or []
    if not isinstance(needs, list) or any(slot not in SLOTS for slot in needs):
        raise BadSample("malformed_record", f"{location}: needs must be a list of {', '.join(SLOTS)}; got {needs!r}.")
    return tuple(needs)


def _parse_fps(raw: Mapping[str, Any], location: str) -> float:
    fps = raw.get("fps", 25.0)
    if not _is_number(fps) or not 0 < fps < math.inf:
        raise BadSample("malformed_record", f"{location}: fps must be the frames per second of a folder, got {fps!r}.")
    return float(fps)


def _parse_messages(turns: Any, location: str) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        message = f"{location}: conversations must be a list of turns, got {turns!r}."
        raise BadSample("missing_conversations", message)
    messages = []
    for number, turn in enumerate(turns):
        role = turn.get("from") if isinstance(turn, dict) else None
        if role not in ROLES:
            raise BadSample("unknown_role", f"{location}: turn {number}: unknown role {role!r}; expected human or gpt.")
        if not isinstance(turn.get("value"), str):
            raise BadSample("malformed_record", f"{location}: turn {number} has no text in `value`.")
        if ROLES[role] != ("user", "assistant")[number % 2]:
            raise BadSample("odd_turns", f"{location}: turn {number} is from {role}; human and gpt must alternate.")
        messages.append((ROLES[role], turn["value"]))
    if len(messages) % 2:
        raise BadSample("odd_turns", f"{location}: {len(messages)} turns; every human turn needs an answer from gpt.")
    return tuple(messages)


def _parse_slots(messages: Sequence[Message], kind: str, location: str) -> tuple[str, ...]:
    """Return the slots that the text names, checked: each once, in a human turn, and possible for the file."""
    questions = "\n".join(text for role, text in messages if role == "user")
    answers = "\n".join(text for role, text in messages if role == "assistant")
    for tag in TAGS:
        if tag in answers:
            raise BadSample("placeholder_in_answer", f"{location}: {tag} is in an answer; move it to a human turn.")
        if questions.count(tag) > 1:
            message = f"{location}: {tag} occurs {questions.count(tag)} times; a record has one file: keep one tag."
            raise BadSample("placeholder_twice", message)
    tags = [tag for tag in TAGS if tag in questions]
    if kind in ("", "text"):
        if tags:
            message = f"{location}: the text has {', '.join(tags)}, but the record has no file; add {tags[0][1:-1]!r}."
            raise BadSample("placeholder_without_media", message)
        if kind:
            return ()
        raise BadSample("no_media", f"{location}: the record has no file; add one of {', '.join(KINDS)}.")
    if unexpected := sorted(set(tags) - set(tags_of(kind))):
        message = f"{location}: the text has {', '.join(unexpected)}, but the record's file is its {kind!r}."
        raise BadSample("placeholder_without_media", message)
    if not tags:
        message = f"{location}: the record has {kind!r}, but no human turn has its tag: write <{kind}>."
        raise BadSample("media_without_placeholder", message)
    return tuple(TAGS[tag] for tag in tags)


def _parse_path(
    raw: Mapping[str, Any], key: str, root: Path, location: str, *, allow_folder: bool = False
) -> Path | None:
    if not raw.get(key):
        return None
    return _resolve(root, raw[key], f"{location}: {key}", allow_folder=allow_folder)


def _resolve(root: Path, name: Any, place: str, *, allow_folder: bool = False) -> Path:
    """Return a path below the root, links and dots resolved."""
    try:
        file = (root / str(name)).resolve()
        exists = file.is_file() or (allow_folder and file.is_dir())
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, with a null byte, a loop of links
        raise BadSample("missing_file", f"{place} {name!r}: not a valid path ({error}).") from error
    if not file.is_relative_to(root.resolve()):
        raise BadSample("outside_root", f"{place} {name!r} is outside data.root ({root}); paths are relative to it.")
    if not exists:
        raise BadSample("missing_file", f"{place} {name!r}: there is no such file in data.root ({root}).")
    return file
