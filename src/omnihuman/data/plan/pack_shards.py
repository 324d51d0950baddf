"""Packing of media files into shards: plain tar files in the layout of webdataset, with checksums."""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.plan.stat import Stat, stat_file
from omnihuman.data.record import Record
from omnihuman.data.shards import to_path

SHARD_BYTES = 10**9


class ShardWriter:
    """Packs files, each once, into tar files; those that an interrupted packing has finished are taken over.

    Args:
        target: folder or URL in which the shards are written.
        url: from which they are read.
        log_folder: of a file for each finished shard, with its members and checksum.
        shard_bytes: size of a shard, which its last file may exceed.
    """

    def __init__(self, target: str, url: str, log_folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.target, self.url, self.log_folder, self.shard_bytes = target, url, log_folder, shard_bytes
        self.members: dict[str, Path] = {}
        self.number = self.key = 0
        self._sink: Any = None
        self._tar: tarfile.TarFile | None = None
        self._new: list[list[Any]] = []
        log_folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(log_folder.glob("*.json")):
            self._take_over(json.loads(file.read_text()))

    def _take_over(self, log: Mapping[str, Any]) -> None:
        """Use the members of a finished shard whose files have not changed since."""
        if log["target"] != self.target:
            return
        self.number = max(self.number, log["number"] + 1)
        for key, name, suffix, file, size, mtime_ns, offset, num_bytes, crc in log["members"]:
            self.key = max(self.key, key + 1)
            if stat_file(file) == (size, mtime_ns):
                content = (offset, num_bytes, crc)
                self.members[name] = to_path(self.url, f"{log['number']:05}.tar", key, content, suffix)

    def pack(self, record: Record) -> Record:
        """Return a record whose files are members of shards; a folder of images stays where it is.

        Raises:
            BadSample: a file cannot be read.
            OSError: the shard cannot be written.
        """
        if record.kind == "text":
            return record
        packed: dict[str, Any] = {"file": self._add(record.file)}
        packed["more_images"] = tuple(map(self._add, record.more_images))
        for name in ("audio_track", "second_clip"):
            if getattr(record, name) is not None:
                packed[name] = self._add(getattr(record, name))
        return replace(record, **packed)

    def _add(self, file: Path) -> Path:
        name = str(file)
        if name in self.members:
            return self.members[name]
        if file.is_dir():
            return self.members.setdefault(name, file)
        stat = stat_file(file)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BadSample("unavailable", f"{file}: cannot be packed ({error}).") from error
        return self.add(name, content, file.suffix, file, stat)

    def add(self, name: str, content: bytes, suffix: str, file: Path, stat: Stat) -> Path:
        """Add a member, and return the path that stands for it.

        Args:
            name: by which it is found again.
            content: of the member.
            suffix: of its name.
            file: that it is made of.
            stat: of this file before it was read.

        Raises:
            OSError: the shard cannot be written.
        """
        self.members[name] = self._append(name, content, suffix, file, stat)
        return self.members[name]

    def _append(self, name: str, content: bytes, suffix: str, file: Path, stat: Stat) -> Path:
        if self._tar is None:
            self._begin()
        assert self._tar is not None
        info = tarfile.TarInfo(f"{self.key:09}{suffix}")
        info.size = len(content)
        offset = self._tar.offset + len(info.tobuf(self._tar.format))
        crc = zlib.crc32(content)
        self._tar.addfile(info, BytesIO(content))
        member = to_path(self.url, f"{self.number:05}.tar", self.key, (offset, len(content), crc), suffix)
        self._new.append([self.key, name, suffix, str(file), *stat, offset, len(content), crc])
        self.key += 1
        if self._tar.offset >= self.shard_bytes:
            self.finish()
        return member

    def _begin(self) -> None:
        import fsspec

        opened = fsspec.open(f"{self.target}/{self.number:05}.tar", "wb", auto_mkdir=True)
        self._sink = _HashingSink(opened.open())
        self._tar = tarfile.TarFile(fileobj=self._sink, mode="w", format=tarfile.USTAR_FORMAT)

    def finish(self) -> None:
        """Write the rest of the shard, and its log."""
        if self._tar is None:
            return
        self._tar.close()
        self._sink.close()
        log = {
            "target": self.target,
            "number": self.number,
            "sha256": self._sink.digest.hexdigest(),
            "members": self._new,
        }
        partial = self.log_folder / f"{self.number:05}.partial"
        partial.write_text(json.dumps(log))
        partial.replace(partial.with_suffix(".json"))
        self._tar, self._new = None, []
        self.number += 1


class _HashingSink:
    """A file that is written from its beginning to its end, with the hash of its content."""

    def __init__(self, file: Any) -> None:
        self.file, self.digest, self.position = file, hashlib.sha256(), 0

    def tell(self) -> int:
        return self.position

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.position += len(content)
        return int(self.file.write(content))

    def close(self) -> None:
        self.file.close()
