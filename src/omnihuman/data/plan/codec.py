"""Records, their faces and headers as JSON, and back."""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from omnihuman.data.decode.header import Header, Track
from omnihuman.data.record import FaceDetection, Record
from omnihuman.types import Tiling

_ENCODER = json.JSONEncoder(default=str, separators=(",", ":"))


def to_json(value: Any) -> bytes:
    """Return a value as JSON without blanks; what JSON has no type for, as text."""
    return _ENCODER.encode(value).encode()


def _to_tuple(values: Any) -> Any:
    return None if values is None else tuple(values)


def _to_path(value: Any) -> Any:
    return None if value is None else to_file(value)


to_file = lru_cache(256)(Path)
"""Returns the path of a name; records of the same clip follow each other."""

RECORD_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "file": to_file,
    "messages": lambda messages: tuple(map(tuple, messages)),
    "slots": tuple,
    "needs": tuple,
    "more_images": lambda files: tuple(map(to_file, files)),
    "hidden": tuple,
    "audio_track": _to_path,
    "audio_track_span": _to_tuple,
    "second_clip": _to_path,
    "second_clip_span": tuple,
    "tiling": lambda values: None if values is None else Tiling(*values),
}
"""Fields of a record that JSON has no type for."""

HEADER_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "audio": tuple,
    "videos": lambda tracks: tuple(map(_decode_track, tracks)),
    "audios": lambda tracks: tuple(map(_decode_track, tracks)),
    "size": _to_tuple,
    "notes": tuple,
}


def _find_default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return MISSING if field.default_factory is MISSING else field.default_factory()


def _list_defaults(kind: type[Any]) -> dict[str, Any]:
    return {field.name: _find_default(field) for field in fields(kind)}


RECORD_DEFAULTS, HEADER_DEFAULTS, TRACK_DEFAULTS = map(_list_defaults, (Record, Header, Track))
_GETTERS = {kind: attrgetter(*_list_defaults(kind)) for kind in (Record, Header, Track)}


def _select(value: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults."""
    entries = {}
    for (name, default), entry in zip(defaults.items(), _GETTERS[type(value)](value), strict=True):
        if entry is not default and entry != default:
            entries[name] = entry
    return entries


def encode_record(record: Record) -> bytes:
    """Return a record without its faces; a value of its ``meta`` that JSON has no type for, as a date, as text."""
    entries = _select(record, RECORD_DEFAULTS)
    entries.pop("faces", None)
    return to_json(entries)


def decode_record(text: bytes, faces: tuple[FaceDetection, ...] | None) -> Record:
    """Return the record with faces."""
    entries = json.loads(text)
    for name, value in entries.items():
        if name in RECORD_TYPES:
            entries[name] = RECORD_TYPES[name](value)
    return Record(**entries, faces=faces)


def encode_faces(faces: tuple[FaceDetection, ...]) -> bytes:
    """Return the face detections of a record."""
    return to_json([(entry.time, entry.boxes) for entry in faces])


def decode_faces(text: bytes) -> tuple[FaceDetection, ...]:
    """Return the face detections of a record."""
    faces = []
    for time, boxes in json.loads(text):
        faces.append(FaceDetection(time, tuple(map(tuple, boxes))))
    return tuple(faces)


def encode_header(header: Header) -> bytes:
    """Return a header."""
    entries = _select(header, HEADER_DEFAULTS)
    for name in ("videos", "audios"):
        if name in entries:
            entries[name] = [_select(track, TRACK_DEFAULTS) for track in entries[name]]
    return to_json(entries)


def decode_header(text: bytes) -> Header:
    """Return the header."""
    entries = json.loads(text)
    for name in HEADER_TYPES.keys() & entries.keys():
        entries[name] = HEADER_TYPES[name](entries[name])
    return Header(**entries)


def _decode_track(entries: Mapping[str, Any]) -> Track:
    span = tuple(entries.get("span", (0.0, 0.0)))
    return Track(**{**entries, "span": span})
