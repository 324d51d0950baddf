"""Data files: entries of a file -> records, or errors that name their place."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.data.conversation import check_text
from omnihuman.data.record import BadSample, Entry, parse_record
from omnihuman.source.base import Source
from omnihuman.source.root import SUFFIXES, TABLE_SUFFIXES, describe_table


class FileSource(Source):
    """The records of one file, in order.

    Reference: HumanOmni's README, "Training on Custom Dataset"; the official loader crashes on most invalid records.

    Args:
        path: the data file.
        root: folder that all media paths are relative to and may not leave.
        follow_links: accept links in it to files outside, as in a cache of the hub.
        text_only: accept records without a file.
        add_audio: a video whose text has no ``<audio>`` gets one, as in HumanOmni's loader.

    Attributes:
        suffix: of the files that the class reads; empty for a folder.
    """

    suffix: ClassVar[str] = ""

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        follow_links: bool = False,
        text_only: bool = False,
        add_audio: bool = False,
    ) -> None:
        self.path, self.root = Path(path), Path(root)
        self.options = {"follow_links": follow_links, "allow_text_only": text_only, "add_audio": add_audio}

    @property
    def location(self) -> str:
        return str(self.path)

    def records(self) -> Iterator[Entry]:
        return map(self.parse_raw, self.read_raw())

    def read_raw(self) -> Iterator[tuple[str, Any]]:
        """Yield the place and the content of every entry, see ``entries``."""
        self._check_path()
        yield from self.entries()

    def parse_raw(self, raw: tuple[str, Any]) -> Entry:
        """Return the record of an entry, or its id and its error."""
        place, content = raw
        name = place
        try:
            if isinstance(content, BadSample):
                raise content
            name = _parse_id(content, place)
            return parse_record(content, name, self.root, place, **self.options)
        except BadSample as bad:
            return name, bad

    def fingerprint(self) -> Mapping[str, Any]:
        self._check_path()
        with self.path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return {"path": str(self.path), "sha256": digest, "root": str(self.root.resolve()), **self.options}

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield the place and the content of every entry; a ``BadSample`` in place of content that cannot be parsed."""

    def _check_root(self) -> None:
        if self.root == self.path and not self.root.exists():
            raise ValueError(
                f"{self.path}: there is no such records folder; make it (omnihuman records out={self.path}), or leave "
                "it out of data.records."
            )
        if not self.root.is_dir():
            raise ValueError(f"data.root={self.root}: there is no such folder; {self.path} names its media below it.")

    def _check_path(self) -> None:
        self._check_root()
        if not self.path.is_file():
            raise ValueError(f"{self.path}: there is no such data file (data.records, data.val_records).")
        if self.path.suffix in SUFFIXES and self.path.suffix != self.suffix:
            raise ValueError(f"{self.path} is no {self.suffix} file: choose data={self.path.suffix[1:]}.")
        if self.path.suffix.lower() in TABLE_SUFFIXES:
            raise ValueError(f"{self.path}: {describe_table(self.path)}")
        if self.path.suffix != self.suffix:
            raise ValueError(f"{self.path}: unknown data file; expected {', '.join(SUFFIXES)}.")


def _parse_id(raw: Any, place: str) -> str:
    """Return the id of a record, its place where it has none."""
    name = raw.get("id") if isinstance(raw, dict) else None
    if name is None or name == "":
        return place
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise BadSample("malformed_record", f"{place}: id must be text or a whole number, got {name!r:.80}.")
    check_text(str(name), f"{place}: id")
    if len(str(name).splitlines()) > 1:
        raise BadSample("malformed_record", f"{place}: id must be one line, got {name!r:.80}.")
    return str(name)
