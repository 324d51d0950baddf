"""Data files: JSON, JSON lines or Parquet -> records, or errors that name their place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.data.record import BadSample, Record, parse_record


def read_records(path: Path, root: Path) -> Iterator[Record | tuple[str, BadSample]]:
    """Yield the records of a data file in order; for an invalid record, its id and the error.

    Reference: HumanOmni's README, "Training on Custom Dataset"; the official loader crashes on most of these errors.

    Args:
        path: ``.json`` (one list), ``.jsonl`` or ``.parquet``.
        root: folder that all media paths are relative to and may not leave.

    Raises:
        ValueError: the file is missing, of another kind, or not a list of records.
    """
    for place, raw in _read_entries(path):
        name = str(raw.get("id", place)) if isinstance(raw, dict) else place
        try:
            if isinstance(raw, BadSample):
                raise raw
            yield parse_record(raw, name, root, place)
        except BadSample as bad:
            yield name, bad


def _read_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and content of every entry."""
    readers = {".jsonl": _read_lines, ".json": _read_list, ".parquet": _read_parquet}
    if not path.is_file():
        raise ValueError(f"{path}: there is no such data file (data.records).")
    if path.suffix not in readers:
        raise ValueError(f"{path}: unknown data file; expected .json, .jsonl or .parquet.")
    yield from readers[path.suffix](path)


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                yield place, json.loads(line)
            except ValueError as error:
                message = f"{place}: malformed JSON ({error}); a line of .jsonl must be one record."
                yield place, BadSample("malformed_json", message)


def _read_list(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        entries = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno}); no record can be read: "
            "correct that line, or use .jsonl, where an error affects one line only."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: malformed JSON ({error}); save the file as UTF-8.") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: a .json data file must be a list of records, got {type(entries).__name__}.")
    for number, entry in enumerate(entries):
        yield f"{path}[{number}]", entry


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
    for number, row in enumerate(parquet.read_table(path).to_pylist()):
        yield f"{path}[{number}]", {key: value for key, value in row.items() if value is not None}
