"""Errors of FFmpeg as bad samples: an invalid file, a format that is not read, or a machine that cannot read now."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.format import ContainerFormat

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.machine import MACHINE_ERRORS


def explain_open_error(path: Path, error: Any, formats: str) -> BadSample:
    """Return the bad sample of a file that FFmpeg cannot open.

    Args:
        path: the file.
        error: of PyAV.
        formats: names of the formats that may be opened, separated by commas.
    """
    if error.errno in MACHINE_ERRORS:
        return _explain_machine_error(path, error)
    unread = find_unread_formats(formats).get(path.suffix.lower())
    if unread is not None:
        message = f"its format ({unread}) is not read: convert it, as with ffmpeg -i {path.name} {path.stem}.mp4"
        return BadSample("unread_format", f"{path}: {message}.")
    details = f"{path.stat().st_size} bytes; FFmpeg: {error.strerror or error}"
    return BadSample("unreadable", f"{path}: not a media file, or its header is cut off ({details}).")


def explain_read_error(path: Path, error: Any) -> BadSample:
    """Return the bad sample of a file that FFmpeg has opened and cannot decode."""
    if getattr(error, "errno", None) in MACHINE_ERRORS:
        return _explain_machine_error(path, error)
    return BadSample("corrupt", f"{path}: cannot be decoded (FFmpeg: {error}).")


def _explain_machine_error(path: Path, error: Any) -> BadSample:
    return BadSample("unavailable", f"{path}: cannot be read at present ({error.strerror}): check the disk and rights.")


@lru_cache
def find_unread_formats(formats: str) -> Mapping[str, str]:
    """Return suffix -> name of the formats that this FFmpeg reads, but may not open.

    >>> find_unread_formats("wav,au")[".m3u8"]
    'hls'
    """
    allowed = set(formats.split(","))
    read, unread = set[str](), dict[str, str]()
    for name in sorted(av.formats_available):
        container = ContainerFormat(name)
        suffixes = {f".{extension}" for extension in container.extensions}
        if allowed.intersection(name.split(",")):
            read |= suffixes
        elif container.is_input:
            unread |= dict.fromkeys(suffixes, name)
    read.add(".txt")  # of subtitles by FFmpeg's table, of any text in fact
    return {suffix: name for suffix, name in unread.items() if suffix not in read}
