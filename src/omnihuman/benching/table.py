"""Tables of figures, printed as Markdown, below a line that names what they were measured with."""

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import omnihuman

PACKAGES = ("torch", "transformers", "lightning", "av", "decord", "flash-attn")

Cell = str | int | float | None


@dataclass
class Table:
    """Figures of one comparison.

    Attributes:
        title: with what all rows have in common.
        columns: their names, units included; none: the title is a note.
        rows: of as many cells; ``None`` where there is no figure.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def format(self) -> str:
        """Return the table as Markdown.

        >>> print(Table("two ways", ("way", "ms"), [("ours", 12.345), ("bare", None)]).format())
        two ways
        <BLANKLINE>
        | way | ms |
        |---|---|
        | ours | 12.35 |
        | bare | - |
        <BLANKLINE>
        """
        if not self.columns:  # a note
            return f"{self.title}\n"
        lines = [self.title, "", self._join(self.columns), "|" + "---|" * len(self.columns)]
        lines += [self._join(list(map(format_cell, row))) for row in self.rows]
        return "\n".join([*lines, ""])

    def to_json(self) -> dict[str, Any]:
        """Return the title, and every row as a mapping."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows}

    def _join(self, cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"


def format_cell(cell: Cell) -> str:
    """Return a cell as text: four digits of a number, whole numbers in full.

    >>> format_cell(0.123456), format_cell(12345.6), format_cell(3), format_cell(None)
    ('0.1235', '12,346', '3', '-')
    """
    if cell is None:
        return "-"
    if isinstance(cell, float) and abs(cell) < 1000:
        return f"{cell:.4g}"
    return cell if isinstance(cell, str) else f"{cell:,.0f}"


def divide(first: float | None, second: float | None) -> float | None:
    """Return a ratio, ``None`` where one of the two was not measured.

    >>> divide(3.0, 2.0), divide(None, 2.0)
    (1.5, None)
    """
    return None if first is None or not second else first / second


def describe_machine() -> dict[str, Any]:
    """Return commit, devices, versions and threads of a measurement."""
    gpu = "none"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return {
        "commit": find_commit(),
        "cpu": f"{os.cpu_count()} x {find_processor()}",
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **dict(list_versions()),
    }


def find_processor() -> str:
    """Return the name of the processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def list_versions() -> Iterator[tuple[str, str]]:
    """Yield the versions of the packages that decide the speed, as far as they are installed."""
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def find_commit() -> str:
    """Return the commit of the clone, with ``+`` if files differ from it; the version of an installed package."""
    folder = Path(omnihuman.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=9", "--dirty=+", "--exclude=*"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"version {omnihuman.__version__}"
    return process.stdout.strip()
