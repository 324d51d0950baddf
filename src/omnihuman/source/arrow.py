"""Records as rows of a data set that the library ``datasets`` has saved."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnihuman.source.files import FileSource

STATE = "state.json"
"""File of a saved data set that names its Arrow files in order."""

SPLITS = "dataset_dict.json"
"""File of a folder of several of them."""


class ArrowSource(FileSource):
    """The records of a folder that ``Dataset.save_to_disk`` has written, one a row; a null is a missing key.

    Media are files below the root, as in every data file: bytes of clips inside the rows are not read.
    """

    def entries(self) -> Iterator[tuple[str, Any]]:
        import pyarrow

        number = 0
        for file in self._list_files():
            try:
                with pyarrow.memory_map(str(file)) as content:
                    for batch in pyarrow.ipc.open_stream(content):
                        for row in batch.to_pylist():
                            entry = {key: value for key, value in row.items() if value is not None}
                            yield f"{self.path}[{number}]", entry
                            number += 1
            except (ValueError, OSError) as error:  # the errors of pyarrow are among them
                reason = str(error).partition("\n")[0]
                raise ValueError(f"{file}: no Arrow file of a data set, or cut off ({reason}).") from error

    def fingerprint(self) -> Mapping[str, Any]:
        self._check_path()
        digest = hashlib.sha256()
        for file in self._list_files():
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return {
            "path": str(self.path),
            "sha256": digest.hexdigest(),
            "root": str(self.root.resolve()),
            **self.options,
        }

    def _list_files(self) -> list[Path]:
        file = self.path / STATE
        try:
            return [self.path / entry["filename"] for entry in json.loads(file.read_text())["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: expected the state of a saved data set ({error!r:.80}).") from error

    def _check_path(self) -> None:
        self._check_root()
        if (self.path / SPLITS).is_file():
            splits = ", ".join(json.loads((self.path / SPLITS).read_text()).get("splits", []))
            raise ValueError(f"{self.path} holds the splits {splits}: name the folder of one of them.")
        if not (self.path / STATE).is_file():
            raise ValueError(f"{self.path}: no folder of Dataset.save_to_disk, there is no {STATE} in it.")
