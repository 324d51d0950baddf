"""Data files: JSON, JSON lines, Parquet -> records, or what is wrong with them, place by place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.data.record import BadSample, Record, parse_record


def read_records(path: Path, root: Path) -> Iterator[Record | tuple[str, BadSample]]:
    """The records of a data file in order; in the place of a bad one its id and what is wrong with it.

    Reference: HumanOmni's README, "Training on Custom Dataset"; the official loader crashes on most of what is caught.

    Args:
        path: ``.json`` (one list), ``.jsonl`` or ``.parquet``.
        root: folder that all media paths are relative to and may not leave.

    Raises:
        ValueError: the file is missing, of another kind, or no list of records as a whole.
    """
    for place, raw in _raw(path):
        name = str(raw.get("id", place)) if isinstance(raw, dict) else place
        try:
            if isinstance(raw, BadSample):
                raise raw
            yield parse_record(raw, name, root, place)
        except BadSample as bad:
            yield name, bad


def _raw(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of every entry."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such data file (data.records).")
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                place = f"{path}:{number}"
                if line.strip():
                    try:
                        yield place, json.loads(line)
                    except ValueError as error:
                        what = f"{place}: malformed JSON ({error}); a line of .jsonl is one whole record."
                        yield place, BadSample("malformed_json", what)
    elif path.suffix == ".json":
        try:
            entries = json.loads(path.read_bytes())
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno}); nothing of the file "
                "can be read: correct that line, or use .jsonl, where a line stands alone."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: malformed JSON ({error}); save the file as UTF-8.") from error
        if not isinstance(entries, list):
            raise ValueError(f"{path}: a .json data file is one list of records, this is a {type(entries).__name__}.")
        yield from ((f"{path}[{number}]", entry) for number, entry in enumerate(entries))
    elif path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
        rows = parquet.read_table(path).to_pylist()
        yield from ((f"{path}[{n}]", {k: v for k, v in row.items() if v is not None}) for n, row in enumerate(rows))
    else:
        raise ValueError(f"{path}: a data file ends in .json, .jsonl or .parquet.")
