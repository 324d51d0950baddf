"""Paths of media files, which stay below a root folder."""

import os
import stat
import time
from functools import lru_cache
from pathlib import Path

from omnihuman.data.machine import MACHINE_ERRORS, retry

FOLLOW_LINKS = "data.source.follow_links=true"
"""Override that allows links out of the root."""


class PathError(ValueError):
    """A path that does not lead to a file below the root.

    Attributes:
        reason: ``missing_file`` or ``outside_root``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def resolve_path(root: Path, name: str, *, allow_folder: bool = False, follow_links: bool = False) -> Path:
    """Return the absolute path of a file below the root.

    Args:
        root: the folder.
        name: path relative to it.
        allow_folder: accept a folder as well.
        follow_links: accept links to files outside the root, as in a cache of the hub; the returned path is that of
            the link. Without it the target has to be below the root as well, and is returned.

    Raises:
        PathError: the path is invalid, leaves the root or does not exist.
    """
    work = "" if os.path.isabs(root) else os.getcwd()
    return _resolve_file(root, name, allow_folder, follow_links, work, int(time.monotonic()))


@lru_cache(maxsize=64)
def _resolve_file(root: Path, name: str, allow_folder: bool, follow_links: bool, work: str, second: int) -> Path:
    """Return the path of a file below a root; the instructions on a clip follow each other, and find it once."""
    try:
        file = os.path.abspath(os.path.join(root, name)) if follow_links else _resolve(os.path.join(root, name))
        mode = retry(lambda: _read_mode(file), _is_passing)
    except (OSError, ValueError) as error:  # a name too long, with a null byte, a loop of links
        reason = getattr(error, "strerror", None) or str(error)
        raise PathError("missing_file", f"not a valid path ({reason:.80}).") from error
    base = os.path.abspath(root) if follow_links else _resolve_folder(str(root))
    if file != base and not file.startswith(os.path.join(base, "")):
        lexical_root = Path(os.path.abspath(root))
        lexical = Path(os.path.abspath(lexical_root / name))
        raise PathError("outside_root", _describe_outside(root, lexical, lexical_root, Path(file)))
    is_folder = stat.S_ISDIR(mode)
    if not (stat.S_ISREG(mode) or (allow_folder and is_folder)):
        raise PathError("missing_file", f"there is no such file in data.root ({root}){_find_cure(name, is_folder)}.")
    if is_folder and not follow_links:
        _check_folder(root, Path(file), Path(base))
    return Path(file)


def _resolve(path: str) -> str:
    """Return the path without links; the folder, which holds many files of a corpus, is resolved once a second."""
    folder, base = os.path.split(path)
    if base in ("", os.curdir, os.pardir) or os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_resolve_folder(folder), base)


def _resolve_folder(folder: str) -> str:
    return _resolve_in_second(folder, "" if os.path.isabs(folder) else os.getcwd(), int(time.monotonic()))


@lru_cache(maxsize=4096)
def _resolve_in_second(folder: str, work: str, second: int) -> str:
    """Return the folder without links, for a relative one in a working folder."""
    return os.path.realpath(folder)


def _read_mode(file: str) -> int:
    """Return the mode of a file, 0 if there is none.

    Raises:
        OSError: the path is invalid, or the disk does not answer.
    """
    try:
        return os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_passing(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in MACHINE_ERRORS


def _describe_outside(root: Path, lexical: Path, lexical_root: Path, file: Path) -> str:
    if lexical.is_relative_to(lexical_root):
        link = _find_link(lexical, lexical_root)
        return f"the link {link} leads to {file}, outside data.root ({root}); {FOLLOW_LINKS} allows links."
    return f"outside data.root ({root}); paths are relative to it."


def _find_link(path: Path, root: Path) -> Path:
    """Return the first link on the way from the root to a path."""
    for part in (*reversed(path.parents), path):
        if part != root and part.is_relative_to(root) and part.is_symlink():
            return part
    return path


def _check_folder(root: Path, folder: Path, base: Path) -> None:
    """Check that no file of a folder is a link out of the root."""
    with os.scandir(folder) as entries:
        links = [Path(entry.path) for entry in entries if entry.is_symlink()]
    for link in sorted(links):
        target = Path(os.path.realpath(link))
        if not target.is_relative_to(base):
            raise PathError("outside_root", _describe_outside(root, link, folder, target))


def _find_cure(name: str, is_folder: bool) -> str:
    if is_folder:
        return ": it is a folder"
    if "://" in name:
        return ": a URL is not read, download the file"
    if "\\" in name:
        return "; write / in place of \\ in paths"
    return ""
