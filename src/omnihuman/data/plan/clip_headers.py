"""Headers of records."""

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample
from omnihuman.data.decode.header import Header
from omnihuman.data.record import Record

Headers = Mapping[Path, Header | BadSample]
"""Header of every file, or what is wrong with it."""

select_fields = attrgetter(
    "file", "more_images", "audio_track", "second_clip", "kind", "slots", "video_stream", "audio_stream", "fps"
)
"""Returns the fields of a record that decide its header."""


class ClipHeaders:
    """Headers of records, one object for all instructions on a clip that follow each other.

    Args:
        headers: of the files.
    """

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self._last: tuple[Any, Header] | None = None

    def merge(self, record: Record) -> Header:
        """Return the header of a record.

        Raises:
            BadSample: a file cannot be used, or lacks what the record takes from it; the message names the record.
        """
        fields = select_fields(record)
        if self._last is None or self._last[0] != fields:
            try:
                self._last = fields, media.merge_headers(record, self.headers)
            except BadSample as bad:
                raise add_source(bad, record) from bad
        return self._last[1]


def add_source(bad: BadSample, record: Record) -> BadSample:
    """Return an error with the place and the id of its record."""
    return BadSample(bad.reason, f"{record.location} ({record.id}): {bad}")
