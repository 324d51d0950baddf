"""Records: the samples of a data file, checked key by key."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnihuman.data.bad_sample import BadSample as BadSample
from omnihuman.data.conversation import Message, check_text, parse_conversation
from omnihuman.data.files import parse_files, parse_kind, parse_path
from omnihuman.data.tags import parse_tags
from omnihuman.modality import BY_FIELD, KINDS, SLOTS, TAGS, View, strip_tags
from omnihuman.types import Tiling

KEYS = {
    "id",
    "conversations",
    "start",
    "end",
    "task",
    "needs",
    "faces",
    "audio_track",
    "video_stream",
    "audio_stream",
    "second_clip",
    "fps",
    *KINDS,
}
"""Keys of a record; all other keys go into ``meta``."""

TEXT_KEYS = ("instruction", "system", "prime")
"""Keys of ``meta`` with a meaning; their values are texts."""

MAX_NUMBER = 1e9
"""Largest number of a record, in seconds or pixels: products of larger ones overflow in FFmpeg."""

Span = tuple[float, float | None]
"""First and last second; ``None`` is the end of the file."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the upright frame."""


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
        more_images: images after ``file``; every one has a tag of its own in the text.
        location: file and line, for messages.
        meta: all other keys. Three have a meaning: ``instruction`` replaces the text for encoders of the instruction,
            ``system`` replaces the model's system prompt, and ``prime`` is the beginning of a generated answer.
        num_context: messages at the beginning whose answers are not supervised.
        hidden: fields of the sample that encoders do not get, though the slot of the field is in the text.
        audio_track: file with the audio, if it is not in ``file``.
        audio_track_span: span of the audio, if it differs from the clip's.
        video_stream: number of the video among those of ``file``, from 0; ``None`` for the one that FFmpeg chooses.
        audio_stream: number of the audio among those of its file, likewise.
        second_clip: a second video without audio; its frames follow those of the first, half of the frames each.
        second_clip_span: span of the second video.
        fps: frames per second of a folder of images.
        tiling: of each of its images, if they are cut into tiles; set by the reader of frames.
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
    more_images: tuple[Path, ...] = ()
    location: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    num_context: int = 0
    hidden: tuple[str, ...] = ()
    audio_track: Path | None = None
    audio_track_span: Span | None = None
    video_stream: int | None = None
    audio_stream: int | None = None
    second_clip: Path | None = None
    second_clip_span: Span = (0.0, None)
    fps: float = 25.0
    tiling: Tiling | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All media files of the record."""
        if self.kind == "text":
            return ()
        files = (self.file, *self.more_images, self.audio_track, self.second_clip)
        return tuple(file for file in files if file is not None)

    @property
    def clips(self) -> "tuple[Record, ...]":
        """The record for each of its images alone, with their faces; of one file, the record itself."""
        if not self.more_images:
            return (self,)
        clips = []
        for number, file in enumerate((self.file, *self.more_images)):
            faces = None if self.faces is None else (replace(self.faces[number], time=0.0),)
            clips.append(replace(self, file=file, more_images=(), faces=faces))
        return tuple(clips)

    @property
    def span(self) -> Span:
        """First and last second of the clip."""
        return self.start, self.end

    @property
    def audio_span(self) -> Span:
        """First and last second of the audio."""
        return self.span if self.audio_track_span is None else self.audio_track_span

    def restrict(self, view: View, name: str | None = None) -> "Record | None":
        r"""Return the record with the modalities of a view only; ``None`` if nothing or too little is left.

        Args:
            view: the modalities.
            name: id of the record if it changes; without it, it stays.

        >>> record = Record("1", Path("a.mp4"), "video", (("user", "<video>\n<audio>\nWho?"),), ("video", "audio"))
        >>> record.restrict(View.parse("VF")).messages[0][1]
        '<video>\nWho?'
        """
        slots = tuple(slot for slot in self.slots if slot in view.slots)
        if set(self.needs) - set(slots):
            return None
        changes: dict[str, Any] = {} if name is None else {"id": name}
        if not slots:
            return None if view else self.drop_slots(self.slots, kind="text", hidden=(), **changes)
        hidden = view.hidden(slots)
        if slots != self.slots:
            return self.drop_slots([slot for slot in self.slots if slot not in slots], hidden=hidden, **changes)
        return self if self.hidden == hidden else replace(self, hidden=hidden, **changes)

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

    def drop_slots(self, slots: Collection[str], **changes: Any) -> "Record":
        """Return the record with some slots removed from its text, and with further changes of fields."""
        tags = [tag for tag, slot in TAGS.items() if slot in slots]
        without = {
            "messages": tuple([(role, strip_tags(text, tags)) for role, text in self.messages]),
            "slots": tuple([slot for slot in self.slots if slot not in slots]),
            "more_images": () if "video" in slots else self.more_images,
            "hidden": tuple([name for name in self.hidden if BY_FIELD[name].slot not in slots]),
        }
        return replace(self, **(without | changes))


Entry = Record | tuple[str, BadSample]
"""A record, or the id of an invalid one and its error."""


def select_views(record: Record, views: Iterable[View]) -> list[Record]:
    """Return the record in each view that leaves something of it; views with the same result count once.

    A record without a file is part of every view, and counts once.
    """
    if record.kind == "text":
        return [record]
    records: dict[tuple[object, ...], Record] = {}
    for view in views:
        viewed = record.restrict(view, f"{record.id}#{view}")
        if viewed is not None:
            records.setdefault((viewed.slots, viewed.hidden), viewed)
    return list(records.values())


def parse_record(
    raw: Any,
    name: str,
    root: Path,
    location: str,
    *,
    allow_text_only: bool = False,
    follow_links: bool = False,
    add_audio: bool = False,
) -> Record:
    """Check and convert one record.

    Args:
        raw: the record.
        name: its id.
        root: folder of the media.
        location: its place, for messages.
        allow_text_only: accept a record without a file; without it, such a record has a mistyped key.
        follow_links: accept files that are links out of the root.
        add_audio: ask about the audio of every video, see ``parse_tags``.

    Raises:
        BadSample: a value is invalid; the message names the place, the key and the cure.
    """
    if not isinstance(raw, dict):
        raise BadSample("malformed_record", f"{location}: a record must be an object, got {type(raw).__name__}.")
    meta = _parse_meta(raw, location)
    system, messages = parse_conversation(raw, location)
    if system is not None:
        meta["system"] = system
    kind = parse_kind(raw, location, allow_text_only)
    file, *more_images = parse_files(raw, kind, root, location, follow_links=follow_links)
    messages, slots = parse_tags(messages, kind, 1 + len(more_images), location, add_audio=add_audio)
    start, end = parse_span(raw, location)
    task = raw.get("task")
    if task is not None:
        check_text(task, f"{location}: task")
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
        faces=_check_faces(parse_faces(raw.get("faces"), location), more_images, location),
        more_images=tuple(more_images),
        location=location,
        meta=meta,
        audio_track=parse_path(raw, "audio_track", root, location, follow_links=follow_links),
        video_stream=_parse_stream(raw, "video_stream", location),
        audio_stream=_parse_stream(raw, "audio_stream", location),
        second_clip=parse_path(raw, "second_clip", root, location, allow_folder=True, follow_links=follow_links),
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
        if not _is_number(time) or time < 0:
            raise BadSample("malformed_faces", f"{place}: time must be the second of the frame, got {time!r:.80}.")
        earlier = boxes_by_time.get(float(time), ())
        boxes_by_time[float(time)] = earlier + _parse_boxes(entry.get("box"), place)
    return tuple(FaceDetection(time, boxes_by_time[time]) for time in sorted(boxes_by_time))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= MAX_NUMBER  # false for NaN


def _parse_meta(raw: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Return all keys without a field of their own; a text that is null counts as missing."""
    meta = {key: value for key, value in raw.items() if key not in KEYS}
    for key in TEXT_KEYS:
        if meta.get(key) is None:
            meta.pop(key, None)
        else:
            check_text(meta[key], f"{location}: {key}")
    return meta


def _parse_boxes(raw: Any, place: str) -> tuple[Box, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or len(raw) != 4 or not all(map(_is_number, raw)):
        raise BadSample("malformed_faces", f"{place}: a box is [x0, y0, x1, y1] in pixels or null, got {raw!r:.80}.")
    x0, y0, x1, y1 = map(float, raw)
    if x0 >= x1 or y0 >= y1:
        raise BadSample("malformed_faces", f"{place}: the box {raw} has no area; it must be [x0, y0, x1, y1].")
    return ((x0, y0, x1, y1),)


def parse_span(raw: Mapping[str, Any], location: str) -> Span:
    """Return ``start`` and ``end`` of a record or a question.

    Raises:
        BadSample: they are no seconds, or not in order.
    """
    start, end = raw.get("start"), raw.get("end")
    seconds = [time for time in (start, end) if time is not None]
    if not all(map(_is_number, seconds)) or (start or 0) < 0:
        message = f"{location}: start and end must be seconds, got {start!r:.40} and {end!r:.40}."
        raise BadSample("malformed_record", message)
    start = float(start or 0.0)
    if end is None:
        return start, None
    if end <= start:
        raise BadSample("malformed_record", f"{location}: end {end} must be greater than start {start:g}.")
    return start, float(end)


def _parse_needs(raw: Mapping[str, Any], location: str) -> tuple[str, ...]:
    needs = raw.get("needs")
    if needs is None:
        return ()
    if not isinstance(needs, list) or any(slot not in list(SLOTS) for slot in needs):
        message = f"{location}: needs must be a list of {', '.join(SLOTS)}; got {needs!r:.80}."
        raise BadSample("malformed_record", message)
    return tuple(needs)


def _parse_fps(raw: Mapping[str, Any], location: str) -> float:
    fps = raw.get("fps", 25.0)
    if not _is_number(fps) or fps < 1 / MAX_NUMBER:
        message = f"{location}: fps must be the frames per second of a folder, got {fps!r:.80}."
        raise BadSample("malformed_record", message)
    return float(fps)


def _parse_stream(raw: Mapping[str, Any], key: str, location: str) -> int | None:
    number = raw.get(key)
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        message = f"{location}: {key} must be the number of a stream of its kind, from 0, got {number!r}."
        raise BadSample("malformed_record", message)
    return number


def _check_faces(
    faces: tuple[FaceDetection, ...] | None, more_images: Sequence[Path], location: str
) -> tuple[FaceDetection, ...] | None:
    """Return the faces, checked to be one entry for each image where there are several."""
    num_images = 1 + len(more_images)
    if faces is not None and more_images:
        is_list = all(entry.time is None for entry in faces)
        if not is_list or len(faces) != num_images:
            message = f"{location}: faces must be one box (or null) for each of the {num_images} images."
            raise BadSample("malformed_faces", message)
    return faces
