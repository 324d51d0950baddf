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
            for number, line in enumerate(lines, 1):
                place = f"{self.path}:{number}"
                if not line.strip():
                    continue
                try:
                    yield place, json.loads(line)
                except ValueError as error:
                    message = f"{place}: malformed JSON ({error}); a line of .jsonl must be one record."
                    yield place, BadSample("malformed_json", message)
