"""Annotated clips in a folder for each label: ``clips/happy/1.mp4``, or with splits ``clips/train/happy/1.mp4``."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.data.media import probe
from omnihuman.data.record import BadSample
from omnihuman.source.annotation import Annotation, AnnotationSource
from omnihuman.source.splits import SPLIT_NAMES

SIDE_FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".srt", ".vtt", ".xml", ".yaml", ".npy", ".db", ".ini")
"""Suffixes of files beside clips, which are no clips."""


class FolderSource(AnnotationSource):
    """The clips below a folder; the name of the folder that holds a clip, or one of its parents, is the label.

    Where all folders at the top have names of splits, the labels are the folders below them.

    Args:
        path: the folder.
        root: folder that all media paths are relative to and may not leave.
        question: asked of every clip; ``None``: that of ``questions``, or which of the options fits best.
        questions: wordings of the question of training records, see ``load_questions``.
        options: classes of the answers, see ``find_labels``.
        task: name of what is asked for.
        system: system prompt.
        follow_links: accept links in the root to files outside.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        question: str | None = None,
        questions: str | None = None,
        options: Any = None,
        task: str | None = None,
        system: str | None = None,
        follow_links: bool = False,
    ) -> None:
        super().__init__(
            path,
            root,
            task=task or "label",
            question=question,
            questions=questions,
            options=options,
            system=system,
            follow_links=follow_links,
        )

    def annotations(self) -> Iterator[Annotation]:
        if not self.path.is_dir():
            raise ValueError(f"path={self.path}: there is no such folder.")
        files = self.list_files()
        has_splits = bool(files) and all(file.parts[0].lower() in SPLIT_NAMES for file in files)
        num_folders = 1 + has_splits
        for file in files:
            place = str(self.path / file)
            if len(file.parts) <= num_folders:
                message = f"the file is in no folder of a label; expected {'<split>/' * has_splits}<label>/{file.name}."
                yield Annotation(place, error=BadSample("no_label", message))
                continue
            split = file.parts[0] if has_splits else None
            name = os.path.relpath(self.path / file, self.root)
            kind = _find_kind(self.path / file)
            yield Annotation(place, file.parts[num_folders - 1], {kind: name}, split=split)

    def list_files(self) -> list[Path]:
        """Return the paths of all files that can be clips, relative to the folder; other files are a note."""
        files, skipped = list[Path](), Counter[str]()
        for path in sorted(self.path.rglob("*")):
            file = path.relative_to(self.path)
            if not path.is_file():
                continue
            if path.suffix.lower() in SIDE_FILES or any(part.startswith(".") for part in file.parts):
                skipped[path.suffix or path.name] += 1
            else:
                files.append(file)
        if skipped:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common())
            self.notes.append(f"{self.path}: files that are no clips: {counts}")
        return files


def _find_kind(path: Path) -> str:
    try:
        header = probe(path)
    except BadSample:  # the record will have this error, whatever its kind
        return "video"
    if header.is_still:
        return "image"
    return "video" if header.has_video else "audio"
