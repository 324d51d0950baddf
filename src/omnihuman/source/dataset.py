"""Public data sets in their official layouts: what their sources have in common."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.data.record import BadSample
from omnihuman.source.annotation import Annotation, AnnotationSource
from omnihuman.source.labels import FREE_TEXT
from omnihuman.source.table import Row, check_column, read_table

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".opus", ".m4a")
"""Suffixes of files that an annotation names without one."""


class DatasetSource(AnnotationSource):
    """The clips of a public data set: its official files, splits and folds, in the words of the papers.

    Args:
        path: folder of the data set.
        root: folder that all media paths are relative to and may not leave.
        task: name of what is asked for.
        questions: wordings of the question of training records, see ``load_questions``.
        media: folder of the media below ``path``, or several of which the first that exists is used.
        fold: the test fold; ``None`` for a data set without folds.
        held_out: all clips are test records, whatever the data set says.
        question: in place of ``questions``.
        options: in place of the official classes, see ``find_labels``.
        system: system prompt.
        follow_links: accept links in the root to files outside.

    Attributes:
        labels: what the data set writes -> the class, in the order of the question; empty for free text.
        num_folds: of the data set.

    Raises:
        ValueError: there is no such fold.
    """

    labels: ClassVar[Mapping[str, str]] = {}
    num_folds: ClassVar[int] = 0

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        task: str,
        questions: str,
        media: str | Sequence[str] = ".",
        fold: int | None = None,
        held_out: bool = False,
        question: str | None = None,
        options: Any = None,
        system: str | None = None,
        follow_links: bool = False,
    ) -> None:
        super().__init__(
            path,
            root,
            task=task,
            question=question,
            questions=questions,
            options=options or dict(self.labels) or FREE_TEXT,
            system=system,
            follow_links=follow_links,
        )
        if fold is not None and fold not in range(1, self.num_folds + 1):
            folds = f"choose from 1 to {self.num_folds}" if self.num_folds else "this data set has no folds"
            raise ValueError(f"fold={fold}: {folds}.")
        self.media = [media] if isinstance(media, str) else list(media)
        self.fold, self.held_out = fold or 1, held_out

    def annotations(self) -> Iterator[Annotation]:
        if not self.path.is_dir():
            raise ValueError(f"path={self.path}: there is no such folder.")
        for clip in self.clips():
            yield replace(clip, split="test") if self.held_out else clip

    @abstractmethod
    def clips(self) -> Iterator[Annotation]:
        """Yield the annotated clips, always in the same order; paths are relative to the root.

        Raises:
            ValueError: a file of the layout is missing.
        """

    @cached_property
    def media_folder(self) -> Path:
        """The folder of the media.

        Raises:
            ValueError: there is none.
        """
        return self.find(*self.media)

    def find(self, *names: str) -> Path:
        """Return the first of several files or folders below the data set that exists.

        Raises:
            ValueError: none exists.
        """
        for name in names:
            if (self.path / name).exists():
                return self.path / name
        alternatives = f", nor {' or '.join(names[1:])}" if names[1:] else ""
        raise ValueError(f"path={self.path}: expected {names[0]} in this folder, but it is not there{alternatives}.")

    def find_media(self, *stems: str, suffixes: Sequence[str] = VIDEO_SUFFIXES, folder: Path | None = None) -> str:
        """Return the path of a clip relative to the root.

        Args:
            stems: possible names below the folder, without suffix.
            suffixes: possible suffixes; the empty one is a folder of frames.
            folder: of the clip, ``None``: that of the media.

        Returns:
            The first that exists; if none does, the first, whose record then has the error of a missing file.
        """
        files = [(folder or self.media_folder) / f"{stem}{suffix}" for suffix, stem in product(suffixes, stems)]
        return self.make_relative(next(filter(Path.exists, files), files[0]))

    def list_media(self, folder: Path, pattern: str) -> list[Path]:
        """Return the media files in a folder that match a pattern, sorted; other files are a note."""
        files = [file for file in sorted(folder.glob(pattern)) if file.is_file()]
        media = [file for file in files if file.suffix.lower() in (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)]
        if num_skipped := len(files) - len(media):
            self.notes.append(f"{folder}: files that are no clips: {num_skipped}")
        return media

    def make_relative(self, file: Path) -> str:
        """Return the path of a file relative to the root."""
        return os.path.relpath(file, self.root)

    def read_rows(
        self,
        file: Path,
        build: Callable[[str, Row], Annotation | None],
        columns: Sequence[str],
        split: str | None = None,
        **options: Any,
    ) -> Iterator[Annotation]:
        """Yield the clips of a table, and an error for each malformed row.

        Args:
            file: the table.
            build: place and cells of a row -> its clip, ``None`` for a row that is none.
            columns: that ``build`` reads.
            split: of all its clips.
            options: of ``read_table``; ``names`` are those of the columns of a table without a header.

        Raises:
            ValueError: the table cannot be read, or has no such column.
        """
        table = read_table(file, **options)
        for column in columns:
            check_column(f"path={self.path}", column, table, file)
        for number, row in table.rows:
            place = f"{file}:{number}"
            clip = Annotation(place, error=row) if isinstance(row, BadSample) else build(place, row)
            if clip is not None:
                yield clip if split is None else replace(clip, split=split)
