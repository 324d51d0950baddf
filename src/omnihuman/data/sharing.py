"""The part of its files that a sample is decoded from: samples with the same part can share one decode."""

import hashlib
from operator import attrgetter

from omnihuman.data.record import Record

select_part = attrgetter(
    "file",
    "more_images",
    "kind",
    "start",
    "end",
    "fps",
    "video_stream",
    "audio_stream",
    "audio_track",
    "audio_track_span",
    "second_clip",
    "second_clip_span",
    "slots",
    "hidden",
)
"""Returns the fields of a record that decide what is decoded."""


def hash_part(record: Record) -> int:
    """Return a number for the part of its files that a record is about, of 64 bits; 0 for a record without files."""
    if record.kind == "text":
        return 0
    return int.from_bytes(hashlib.blake2b(repr(select_part(record)).encode(), digest_size=8).digest(), "little")
