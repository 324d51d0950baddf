"""Text files of annotations: JSON, and lines with their locations."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: the file is missing or not JSON.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: this is not JSON ({error}).") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield location and text of the non-blank lines of a text file.

    Raises:
        ValueError: the file is missing or not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: save the file as UTF-8 ({error}).") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line
