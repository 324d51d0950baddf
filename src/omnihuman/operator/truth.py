"""Annotations of a clip in its records: boxes of faces and people, and words with their times."""

import json
from collections.abc import Sequence
from typing import Any

from omnihuman.data.face import assign_times
from omnihuman.data.record import BadSample, Box, parse_faces
from omnihuman.operator.base import Row

Word = dict[str, Any]
"""A word with ``start`` and ``end``, and the ``box`` of the speaker's face in its middle or ``None``."""


def read_boxes(row: Row, key: str) -> list[tuple[float, Sequence[Box]]] | None:
    """Return seconds and boxes within the row's span, of its first record with a key; ``None`` if none has it.

    Args:
        row: with ``records``, ``fps`` and ``seconds``.
        key: of boxes in the form of ``faces``.

    Raises:
        BadSample: the boxes of a record are malformed.
    """
    for text in row["records"]:
        detections = parse_faces(json.loads(text).get(key), row["source"])
        if detections is None:
            continue
        timed = assign_times(detections, round(row["fps"] * row["seconds"]), row["fps"] or 25.0)
        begin, end = find_limits(row)
        return [(entry.time or 0.0, entry.boxes) for entry in timed if begin <= (entry.time or 0.0) <= end]
    return None


def read_words(row: Row) -> list[Word] | None:
    """Return the words whose middle is within the row's span, of its first record with ``words``; ``None`` without.

    Raises:
        BadSample: a word is malformed.
    """
    for text in row["records"]:
        words = json.loads(text).get("words")
        if words is None:
            continue
        begin, end = find_limits(row)
        checked = [_check_word(word, f"{row['source']}: words[{number}]") for number, word in enumerate(words)]
        return [word for word in checked if begin <= (word["start"] + word["end"]) / 2 < end]
    return None


def find_limits(row: Row) -> tuple[float, float]:
    """Return first and last second of a row's span."""
    return row["start"], row["end"] or row["start"] + row["seconds"]


def _check_word(raw: Any, place: str) -> Word:
    if not isinstance(raw, dict) or not isinstance(raw.get("word"), str):
        raise BadSample("malformed_words", f"{place}: expected an object with word, start and end, got {raw!r:.80}.")
    start, end = raw.get("start"), raw.get("end")
    numbers = (int, float)
    if not isinstance(start, numbers) or not isinstance(end, numbers) or not 0 <= start <= end:
        raise BadSample(
            "malformed_words", f"{place}: start and end must be seconds, got {start!r:.40} and {end!r:.40}."
        )
    boxes = parse_faces([{"time": start, "box": raw.get("box")}], place)
    assert boxes is not None
    box = boxes[0].boxes[0] if boxes[0].boxes else None
    return {"word": raw["word"], "start": float(start), "end": float(end), "box": box}
