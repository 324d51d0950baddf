"""The records of a data file, of the kind that its suffix names, or the training records of a records folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnihuman.data.record import Entry
from omnihuman.source.arrow import SPLITS, STATE, ArrowSource
from omnihuman.source.base import Source
from omnihuman.source.files import FileSource
from omnihuman.source.json import JsonSource
from omnihuman.source.jsonl import JsonlSource
from omnihuman.source.parquet import ParquetSource
from omnihuman.source.root import find_media_root, read_records_folder

KINDS: tuple[type[FileSource], ...] = (JsonSource, JsonlSource, ParquetSource)


class RecordsSource(Source):
    """The records of a ``.json``, ``.jsonl`` or ``.parquet`` file, in order.

    Args:
        path: the data file, a folder with ``train.json``, or one that ``Dataset.save_to_disk`` has written.
        root: folder that all media paths are relative to and may not leave; ``None``: as ``report.json`` beside the
            file says, or the folder of the file.
        follow_links: accept links in it to files outside, as in a cache of the hub.
        text_only: accept records without a file.
        add_audio: a video whose text has no ``<audio>`` gets one, as in HumanOmni's loader.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        *,
        follow_links: bool = False,
        text_only: bool = False,
        add_audio: bool = False,
    ) -> None:
        path = Path(path).expanduser()
        if root is None:
            root = find_media_root(path)
        is_saved = any((path / name).is_file() for name in (STATE, SPLITS))
        if path.is_dir() and not is_saved:
            path = read_records_folder(path).train
        classes = {kind.suffix: kind for kind in KINDS}
        kind = ArrowSource if is_saved else classes.get(path.suffix, JsonSource)  # which refuses other suffixes
        self.source = kind(path, root, follow_links=follow_links, text_only=text_only, add_audio=add_audio)

    @property
    def location(self) -> str:
        return self.source.location

    def records(self) -> Iterator[Entry]:
        return self.source.records()

    def read_raw(self) -> Iterator[Any]:
        """Yield the place and the content of every entry."""
        return self.source.read_raw()

    def parse_raw(self, raw: Any) -> Entry:
        """Return the record of an entry, or its id and its error."""
        return self.source.parse_raw(raw)

    def fingerprint(self) -> Mapping[str, Any] | None:
        return self.source.fingerprint()
