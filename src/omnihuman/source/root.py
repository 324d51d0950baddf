"""Records folders: ``train.json``, ``val.json``, ``test.json``, and a report that names the folder of their media."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omnihuman.overrides import parse_override, quote

REPORT = "report.json"
"""File of ``omnihuman records`` beside the records."""

SPLITS = ("train", "val", "test")
VALIDATION_INDEX = "val"
"""Folder in an index (``omnihuman index``) with the index of its validation records."""

SUFFIXES = (".json", ".jsonl", ".parquet")
TABLE_SUFFIXES = (".csv", ".tsv", ".xls", ".xlsx", ".ods")
"""Suffixes of tables, of which ``omnihuman records`` makes records."""


@dataclass(frozen=True, slots=True)
class RecordsFolder:
    """The files of a folder with records of several splits, or one file of records.

    Attributes:
        train: the file of the training records.
        val: that of the validation records, ``None`` without one.
        test: that of the test records, likewise.
        root: folder that the media paths are relative to.
        person: key of the records that names the person, ``None`` if the report names none.
    """

    train: Path
    val: Path | None
    test: Path | None
    root: Path
    person: str | None


def find_validation_index(index: str | Path) -> Path | None:
    """Return the index of the validation records in an index, ``None`` without one."""
    folder = Path(index).expanduser() / VALIDATION_INDEX
    return folder if (folder / "index.json").is_file() else None


def read_records_folder(path: str | Path) -> RecordsFolder:
    """Return the files of a records folder, or of one file; nothing but the report is read, and no file has to exist.

    Raises:
        ValueError: the report is no JSON object.
    """
    path = Path(path)
    is_file = path.suffix in SUFFIXES and not path.is_dir()
    folder = path.parent if is_file else path
    report = read_report(folder)
    files = dict[str, Path | None](train=path, val=None, test=None)
    if not is_file:
        for split in SPLITS:
            file = folder / f"{split}.json"
            files[split] = file if file.is_file() or split == "train" else None
    train = files["train"]
    assert train is not None
    return RecordsFolder(train, files["val"], files["test"], _resolve_root(folder, report), report.get("person"))


def find_media_root(path: str | Path) -> Path:
    """Return the folder that the media paths of a data file or a records folder are relative to.

    It is the ``root`` of the ``report.json`` beside the file, or without one the file's own folder.

    Raises:
        ValueError: the report is no JSON object.
    """
    return read_records_folder(path).root


def has_report(folder: str | Path) -> bool:
    """Return true if a folder holds the report of a records folder: ``inspect`` writes a file of the same name.

    Raises:
        ValueError: the report is no JSON object.
    """
    return "root" in read_report(Path(folder))


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report in a folder, empty without one.

    Raises:
        ValueError: it is no JSON object.
    """
    file = folder / REPORT
    if not file.is_file():
        return {}
    try:
        report = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: malformed JSON ({error}); write the records again: omnihuman records.") from error
    if not isinstance(report, dict):
        raise ValueError(f"{file}: expected the report of omnihuman records, got {type(report).__name__}.")
    return report


def _resolve_root(folder: Path, report: dict[str, Any]) -> Path:
    """Return the root of a report, relative to its folder, without detours such as ``mine/../clips``."""
    root = folder / str(report.get("root", "."))
    short = Path(os.path.normpath(root))
    return short if short.resolve() == root.resolve() else root  # they differ where a folder is a link


def expand_data_paths(arguments: Iterable[str]) -> list[str]:
    """Return a command line in which each ``data=<path>`` is replaced by the overrides that it stands for.

    A value is a path if it has a slash, or the suffix of a data file or a table. Several are a sweep.

    Raises:
        ValueError: there is no such file or folder, or it holds no records.

    >>> expand_data_paths(["data=sample", "data.root=a/b"])
    ['data=sample', 'data.root=a/b']
    """
    expanded = []
    for argument in arguments:
        expanded += _expand(argument)
    return expanded


def _expand(argument: str) -> list[str]:
    key, _, value = argument.partition("=")
    if key != "data" or not _is_path(value.strip("'\"[]")):
        return [argument]
    paths = [value]
    if not Path(value).expanduser().exists() and set(value) & set(",'\"[]"):
        paths = parse_override(argument).choices
    for path in paths:
        if path.startswith("["):
            raise ValueError(
                f"{argument}: expected one path; a mixture is data=json data.root=... data.records={path}."
            )
        check_data_path(path)
    quoted = [quote(str(Path(path).expanduser())) for path in paths]
    return ["data=records", f"data.path={','.join(quoted)}"]


def _is_path(value: str) -> bool:
    return "/" in value or os.sep in value or value.endswith((*SUFFIXES, *TABLE_SUFFIXES))


def check_data_path(value: str) -> None:
    """Check that the value of ``data=`` is a records folder or a data file.

    Raises:
        ValueError: it is not; the message names the cure.
    """
    path = Path(value).expanduser()
    if path.suffix.lower() in TABLE_SUFFIXES:
        raise ValueError(f"data={value}: {describe_table(path)}")
    if not path.exists():
        raise ValueError(f"data={value}: there is no such folder or data file{_suggest(path)}")
    if path.is_file() and path.suffix not in SUFFIXES:
        raise ValueError(f"data={value}: unknown data file; expected {', '.join(SUFFIXES)}.")
    if path.is_dir() and not any((path / f"{split}.json").is_file() for split in SPLITS):
        raise ValueError(
            f"data={value}: the folder holds no {', '.join(f'{split}.json' for split in SPLITS)}; make records of a "
            f"folder of clips for each label: omnihuman records source=folder path={value} out=<folder>"
        )


def describe_table(path: Path) -> str:
    """Return how to make records of a table, as the end of a message."""
    command = f"omnihuman records source=table path={path} video=<column> answer=<column> out={path.stem}/"
    return f"a table is no data file; make records of it: {command}"


def _suggest(path: Path) -> str:
    """Return the end of a message: the names beside a missing path that are close to its own."""
    parent = path.parent
    names = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    near = [str(parent / name) for name in get_close_matches(path.name, names, 3, 0.6)]
    return f"; did you mean {' or '.join(near)}?" if near else "."
