"""Source: records from one place."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnihuman.data.record import Entry, Record
from omnihuman.source.sheet import Sheet, draw_records


class Source(ABC):
    """Yields records, and draws some of them.

    The data is not read before the first record is wanted: a model that only answers builds its sources, too.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """The file or folder of the records, for messages."""

    @abstractmethod
    def records(self) -> Iterator[Entry]:
        """Yield the records, always in the same order; for an invalid record, its id and the error.

        Raises:
            ValueError: there is no record to read at all, such as in a missing file.
        """

    def fingerprint(self) -> Mapping[str, Any] | None:
        """Return plain values that decide the records, known without reading each of them; ``None``: there are none."""
        return None

    def draw_sheet(self, file: Path, num_records: int = 12, num_frames: int = 4) -> Sheet:
        """Draw records from all over the source, one in a line, and return the images with the errors of single clips.

        Args:
            file: the PNG; a source may write further images beside it.
            num_records: lines of the sheet.
            num_frames: frames of a video.

        Raises:
            ValueError: no record is valid.
        """
        records = [entry for entry in self.records() if isinstance(entry, Record)]
        if not records:
            raise ValueError(f"{self.location}: there is no valid record to draw.")
        stride = max(1, len(records) // num_records)
        return draw_records(records[::stride][:num_records], num_frames, file)
