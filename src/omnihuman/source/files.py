"""Data files: entries of a file -> records, or errors that name their place."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.data.record import BadSample, Entry, parse_record
from omnihuman.source.base import Source

SUFFIXES = (".json", ".jsonl", ".parquet")


class FileSource(Source):
    """The records of one file, in order.

    Reference: HumanOmni's README, "Training on Custom Dataset"; the official loader crashes on most invalid records.

    Args:
        path: the data file.
        root: folder that all media paths are relative to and may not leave.

    Attributes:
        suffix: of the files that the class reads.
    """

    suffix: ClassVar[str]

    def __init__(self, path: str | Path, root: str | Path) -> None:
        self.path, self.root = Path(path), Path(root)

    @property
    def location(self) -> str:
        return str(self.path)

    def records(self) -> Iterator[Entry]:
        self._check_path()
        for place, raw in self.entries():
            name = str(raw.get("id", place)) if isinstance(raw, dict) else place
            try:
                if isinstance(raw, BadSample):
                    raise raw
                yield parse_record(raw, name, self.root, place)
            except BadSample as bad:
                yield name, bad

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield the place and the content of every entry; a ``BadSample`` in place of content that cannot be parsed."""

    def _check_path(self) -> None:
        if not self.path.is_file():
            raise ValueError(f"{self.path}: there is no such data file (data.records).")
        if self.path.suffix in SUFFIXES and self.path.suffix != self.suffix:
            raise ValueError(f"{self.path} is no {self.suffix} file: choose data={self.path.suffix[1:]}.")
        if self.path.suffix != self.suffix:
            raise ValueError(f"{self.path}: unknown data file; expected {', '.join(SUFFIXES)}.")
