"""The records of an index, which ``omnihuman index`` has checked."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnihuman.data import shards
from omnihuman.data.plan.fingerprint import hash_values
from omnihuman.data.plan.record_tables import RawEntry, parse_row, read_manifest, read_rows
from omnihuman.data.plan.stored_frames import StoredFrames
from omnihuman.data.plan.tables import PlanTable
from omnihuman.data.record import Entry
from omnihuman.source.base import Source


class IndexSource(Source):
    """The records of an index in the order of the data files that it was made of.

    Args:
        path: the folder of the index.
        root: ``None``: the index knows the paths of its media.
        cache: folder of a cache of clips from shards, on a disk of the machine; ``None`` for no cache.
        cache_gb: 10^9 bytes of this folder.

    Raises:
        ValueError: there is a root, or the size of the cache is not above 0.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        *,
        cache: str | None = None,
        cache_gb: int | float = 100,
    ) -> None:
        self.path = Path(path).expanduser()
        if not cache_gb > 0:
            raise ValueError(f"data.source.cache_gb={cache_gb}: expected the size of the cache, above 0.")
        if cache is not None:  # of the process and of its workers, which are forked
            shards.cache = shards.ClipCache(Path(cache).expanduser(), round(cache_gb * 1e9))
        if root is not None:
            raise ValueError(f"data.root={root}: an index knows the paths of its media; leave data.root out.")

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def headers(self) -> Path:
        """Folder of the headers of its media files."""
        return self.path / "headers"

    @property
    def stored_frames(self) -> StoredFrames | None:
        """The frames of each video that the index holds for training, ``None`` where it holds the files themselves."""
        frames = read_manifest(self.path).get("frames")
        return None if frames is None else StoredFrames(**frames)

    def records(self) -> Iterator[Entry]:
        return map(self.parse_raw, self.read_raw())

    def read_raw(self) -> Iterator[RawEntry]:
        """Yield the entries as the tables hold them."""
        for table in self._open_tables():
            yield from read_rows(table)

    def parse_raw(self, raw: RawEntry) -> Entry:
        """Return the record of an entry, or the id of a bad row and its error."""
        return parse_row(raw)

    def fingerprint(self) -> Mapping[str, Any]:
        return {"tables": [[table.content, hash_values(table.report.skipped)] for table in self._open_tables()]}

    def _open_tables(self) -> list[PlanTable]:
        return [PlanTable(self.path / name) for name in read_manifest(self.path)["tables"]]
