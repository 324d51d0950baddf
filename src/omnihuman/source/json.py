"""One JSON list of records."""

import json
from collections.abc import Iterator
from typing import Any

from omnihuman.source.files import FileSource


class JsonSource(FileSource):
    """The records of a ``.json`` file, which is one list: HumanOmni's own layout."""

    suffix = ".json"

    def entries(self) -> Iterator[tuple[str, Any]]:
        content = self._parse()
        if not isinstance(content, list):
            raise ValueError(f"{self.path}: a .json data file must be a list of records, got {type(content).__name__}.")
        for number, entry in enumerate(content):
            yield f"{self.path}[{number}]", entry

    def _parse(self) -> Any:
        try:
            return json.loads(self.path.read_bytes())
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                raise ValueError(
                    f"{self.path}:{error.lineno}: more than one JSON value; if each line is a record, rename the file "
                    "to .jsonl and choose data=jsonl."
                ) from error
            raise ValueError(
                f"{self.path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno}); no record can be "
                "read: correct that line, or use .jsonl, where an error affects one line only."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: malformed JSON ({error}); save the file as UTF-8.") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
            raise ValueError(f"{self.path}: malformed JSON ({error}); no record can be read.") from error
