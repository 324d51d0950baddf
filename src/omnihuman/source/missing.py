"""Cures of missing files: paths of a data set that nearly lead to a file."""

import itertools
from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path
from unicodedata import normalize

from omnihuman.source.annotation import AnnotatedRecord

MAX_ITEMS = 5
"""Missing files that are looked for."""


def find_cure(items: Sequence[AnnotatedRecord], root: Path) -> str:
    """Return why a missing file is not at its path, as a part of a message; empty if no file is like it.

    Args:
        items: records that cannot be used.
        root: of the media.
    """
    missing = [item for item in items if item.error and item.error.reason in ("missing_file", "outside_root")]
    for item in missing[:MAX_ITEMS]:
        for kind, name in item.annotation.files.items():
            if name and (cure := _explain_path(kind, name, root)):
                return f"; {cure}"
    return ""


def _explain_path(kind: str, name: str, root: Path) -> str:
    if Path(name).is_absolute() and Path(name).exists():
        return f"{name} is outside root ({root}): set root={Path(name).parent} or a folder above it"
    for form in ("NFC", "NFD"):
        if (root / normalize(form, name)).exists():
            return f"{name!r} is in the Unicode form {form} on the disk: rename the file or rewrite the table"
    for file in sorted((root / name).parent.glob(f"{escape(Path(name).name)}.*")):
        return f"{name} is {name}{file.suffix}: add the suffix to the column, as {kind}='{{column}}{file.suffix}'"
    for folder in _list_folders(root):
        if (folder / name).exists():
            return f"{name} is in {folder}: set root={folder}"
    return ""


def _list_folders(root: Path) -> Iterator[Path]:
    """Yield the folders above and below a root, two levels each."""
    yield from itertools.islice(root.resolve().parents, 2)
    for pattern in ("*/", "*/*/"):
        yield from sorted(root.glob(pattern))
