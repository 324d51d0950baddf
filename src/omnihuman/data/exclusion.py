"""Samples that a run excludes from its start: those in quarantine, and those that its plan skips."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omnihuman.data.record import Entry, Record

log = logging.getLogger(__name__)

FILE_REASONS = frozenset({"unreadable", "corrupt", "truncated", "no_frames", "no_decoder", "moving_image"})
"""Reasons that lie in a file, so that a later run would meet them again. The other ones depend on the machine
(``missing_file``, ``timeout``), the record or the config, and no sample is quarantined for them."""

Identity = tuple[str, str]
"""Id and file of a sample; the file of an invalid record is empty."""

Description = Mapping[str, Any]
"""A skipped sample: id, file, reason and message; ``is_view`` if the record's other views are used."""


def identify(entry: Entry) -> Identity:
    """Return id and file of a record; the place of a bad one, and no file of a text."""
    if not isinstance(entry, Record):
        return entry[0], ""
    return entry.id, "" if entry.kind == "text" else str(entry.file)


class Exclusions:
    """The excluded samples of each source, read from the lists of quarantine until a run freezes them.

    Each source has a list of its own, which all runs share and which grows while they train. A run that is resumed has
    to plan the samples that it planned at its start: it takes the frozen list from its folder.

    Args:
        folder: of the lists of quarantine; ``None`` reads and writes none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._frozen: dict[str, dict[Identity, Description]] | None = None

    @classmethod
    def for_policy(cls, policy: str, folder: str | None) -> "Exclusions":
        """Return exclusions that read lists of quarantine only where ``policy`` is ``quarantine``.

        Raises:
            ValueError: it has no folder.
        """
        if policy != "quarantine":
            return cls(None)
        if folder is None:
            raise ValueError("data.on_bad_sample=quarantine needs data.quarantine_folder, for lists of bad files.")
        return cls(Path(folder))

    @property
    def digest(self) -> str | None:
        """A hash of the frozen list, ``None`` without one."""
        return None if self._frozen is None else hashlib.sha256(self._to_text().encode()).hexdigest()[:16]

    def find_list(self, source: str) -> Path | None:
        """Return the list of quarantine of a source, ``None`` without a folder.

        Args:
            source: location of the records.
        """
        if self.folder is None:
            return None
        digest = hashlib.sha256(os.path.abspath(source).encode()).hexdigest()[:8]
        return self.folder / f"{Path(source).stem}-{digest}.jsonl"

    def read(self, source: str) -> dict[Identity, Description]:
        """Return the excluded samples of a source.

        Raises:
            ValueError: a line of its list is invalid.
        """
        if self._frozen is not None:
            return self._frozen.get(source, {})
        return self._read_quarantine(source)

    def _read_quarantine(self, source: str) -> dict[Identity, Description]:
        file = self.find_list(source)
        if file is None or not file.is_file():
            return {}
        excluded: dict[Identity, Description] = {}
        for entry in _read_lines(file):
            message = f"{entry['id']} is in {file} ({entry.get('reason')})"
            excluded[_identify(entry)] = {**entry, "reason": "quarantined", "message": message}
        return excluded

    def freeze(self, file: Path, skipped: Mapping[str, Iterable[Description]]) -> None:
        """Exclude from now on the skipped samples of each source alone, and write them to a file.

        Args:
            file: in the folder of the run.
            skipped: location of a source -> its samples that the run does not use.
        """
        frozen: dict[str, dict[Identity, Description]] = {}
        for source, entries in skipped.items():
            frozen[source] = {_identify(entry): dict(entry) for entry in entries}
        self._frozen = frozen
        partial = file.with_suffix(".partial")
        partial.write_text(self._to_text())
        partial.replace(file)

    def restore(self, file: Path) -> None:
        """Exclude the samples that ``freeze`` has written to a file; newer entries of quarantine count for other runs.

        Raises:
            ValueError: a line of the file is invalid.
        """
        frozen: dict[str, dict[Identity, Description]] = {}
        for line in _read_lines(file):
            entry = dict(line)
            frozen.setdefault(str(entry.pop("source", "")), {})[_identify(entry)] = entry
        for source in frozen:
            if newer := self._read_quarantine(source).keys() - frozen[source].keys():
                log.info("%s: %d samples are newer than this run, which goes on as it began", source, len(newer))
        self._frozen = frozen

    def _to_text(self) -> str:
        lines = []
        for source, entries in (self._frozen or {}).items():
            lines += [json.dumps({"source": source, **entry}) + "\n" for entry in entries.values()]
        return "".join(sorted(lines))


def quarantine(file: Path, description: Description) -> None:
    """Append a sample to a list of quarantine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:  # a whole line at once, as several processes write
        lines.write(json.dumps(dict(description)) + "\n")


def _identify(entry: Description) -> Identity:
    return entry["id"], entry["file"]


def _read_lines(file: Path) -> list[Description]:
    entries = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            if not all(isinstance(entry[key], str) for key in ("id", "file")):
                raise TypeError("id and file must be text")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file}:{number}: expected an object with id and file ({error!r:.80}); remove the line."
            ) from error
        entries.append(entry)
    return entries
