"""Records as JSON lines."""

import json
from collections.abc import Iterator
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.source.files import FileSource


class JsonlSource(FileSource):
    """The records of a ``.jsonl`` file, one a line; blank lines are ignored, a malformed line is one bad sample."""

    suffix = ".jsonl"

    def entries(self) -> Iterator[tuple[str, Any]]:
        with self.path.open("rb") as lines:
            is_first = True
            for number, line in enumerate(lines, 1):
                place = f"{self.path}:{number}"
                if not line.strip():
                    continue
                if is_first:
                    self._check_first(line.strip())
                is_first = False
                try:
                    yield place, json.loads(line)
                except (ValueError, RecursionError) as error:
                    message = f"{place}: malformed JSON ({error}); a line of .jsonl must be one record."
                    yield place, BadSample("malformed_json", message)

    def _check_first(self, line: bytes) -> None:
        """Check that the file is not of another kind, in which each line would be an error of its own."""
        if line.startswith(b"["):
            raise ValueError(f"{self.path} holds one list, not a record a line: rename it to .json, choose data=json.")
        if line == b"{":
            raise ValueError(f"{self.path}: a record stretches over several lines; write each record in one line.")
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ValueError(f"{self.path} is UTF-16; save the file as UTF-8.")
