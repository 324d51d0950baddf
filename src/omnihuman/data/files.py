"""Files of a record: the key that names them, and their paths."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.paths import PathError, resolve_path
from omnihuman.modality import KINDS

PLURALS = {f"{kind}s": kind for kind in KINDS}
"""Key of a list of files in the formats of other trainers -> the key of a record."""


def parse_kind(raw: Mapping[str, Any], location: str, allow_text_only: bool) -> str:
    """Return the key that names the record's file, or ``text``; the empty string where a file is missing.

    Raises:
        BadSample: several keys name files, or a mistyped one.
    """
    kinds = [kind for kind in KINDS if _unwrap(raw.get(kind))]
    if kinds == ["video", "audio"]:
        cure = "the audio of a video has the key audio_track, which replaces the video's own"
        raise BadSample("malformed_record", f"{location}: the record has video and audio; {cure}.")
    if len(kinds) > 1:
        message = f"{location}: a record has one file, got {' and '.join(kinds)}: write a record for each."
        raise BadSample("malformed_record", message)
    if kinds:
        return kinds[0]
    for key, value in raw.items():
        likely = get_close_matches(str(key), [*KINDS, *PLURALS], 1, 0.8)
        if likely and value:
            kind = PLURALS.get(likely[0], likely[0])
            message = f"{location}: the record has no file, but {key!r}: rename it to {kind!r}."
            raise BadSample("no_media", message)
    return "text" if allow_text_only else ""


def parse_files(raw: Mapping[str, Any], kind: str, root: Path, location: str, *, follow_links: bool) -> list[Path]:
    """Return the files that the key of a kind names: several images, or one file; the root for none.

    Raises:
        BadSample: a path is invalid.
    """
    if kind == "text":
        return [root]
    names = raw.get(kind)
    if kind != "image" or not isinstance(names, list):
        options = {"allow_folder": kind == "video", "follow_links": follow_links}
        return [parse_path(raw, kind, root, location, **options) or root]
    files = []
    for name in names:
        file = parse_path({kind: name}, kind, root, location, follow_links=follow_links)
        if file is None:
            raise BadSample("malformed_record", f"{location}: {kind} lists an empty path: remove it with its tag.")
        files.append(file)
    return files


def parse_path(raw: Mapping[str, Any], key: str, root: Path, location: str, **options: bool) -> Path | None:
    """Return the path of a key, ``None`` without one; a list of one path counts as this path.

    Raises:
        BadSample: the path is invalid, or the key lists several.
    """
    name = _unwrap(raw.get(key))
    if not name:
        return None
    if isinstance(name, list):
        cure = "write a record for each, or name a second video in second_clip"
        raise BadSample("malformed_record", f"{location}: {key} lists {len(name)} files; a record has one: {cure}.")
    if not isinstance(name, str):
        raise BadSample("malformed_record", f"{location}: {key} must be a path, got {name!r:.80}.")
    try:
        return resolve_path(root, name, **options)
    except PathError as error:
        raise BadSample(error.reason, f"{location}: {key} {name!r:.200}: {error}", root / name) from error


def _unwrap(name: Any) -> Any:
    """Return the element of a list of one, as other trainers write a file."""
    return name[0] if isinstance(name, list) and len(name) == 1 else name
