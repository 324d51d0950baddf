"""Rows for operators that are applied alone."""

from pathlib import Path
from typing import Any

from omnihuman.operator.base import Operator, Row
from tests.curation.conftest import clips as clips


def build_row(file: Path, **fields: Any) -> Row:
    """Return a row of a file of 64 x 48 pixels and a second, with the columns that most operators read."""
    row = {"id": file.stem, "source": file.name, "file": file, "start": 0.0, "end": None, "records": [], "split": None}
    sizes = {"width": 64, "height": 48, "fps": 25.0, "seconds": 1.0, "kind": "video", "faces": None, "has_sound": False}
    return row | sizes | fields


def apply_one(operator: Operator, folder: Path, row: Row) -> Any:
    """Return the outcome of an operator for one row."""
    operator.setup(folder)
    (outcome,) = operator.apply([row])
    return outcome
