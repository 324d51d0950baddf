"""EMER: descriptions of the clues to an emotion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.table import Row

FILES = {
    ("v1", "eng"): ("gt-eng.csv", "names", "reasons"),
    ("v1", "chi"): ("gt-chi.csv", "names", "reasons"),
    ("v2", "eng"): ("final-EMER-reason.csv", "name", "english"),
    ("v2", "chi"): ("final-EMER-reason.csv", "name", "chinese"),
}
"""Version and language -> table, its column of names, its column of descriptions."""


class EMERSource(DatasetSource):
    """The clips of EMER -> the description of the clues to the emotion.

    Reference: EMER (AffectGPT, arXiv 2306.15401): see ``FILES``.

    Args:
        version: ``v1`` or ``v2``.
        language: ``eng`` or ``chi``.
        options: of ``DatasetSource``.
    """

    def __init__(
        self, path: str | Path, root: str | Path, *, version: str = "v2", language: str = "eng", **options: Any
    ) -> None:
        if (version, language) not in FILES:
            raise ValueError(f"source.version={version} source.language={language}: choose v1 or v2, and eng or chi.")
        super().__init__(path, root, **options)
        self.file, self.key, self.column = FILES[version, language]

    def clips(self) -> Iterator[Annotation]:
        return self.read_rows(self.find(self.file), self._build, (self.key, self.column))

    def _build(self, place: str, row: Row) -> Annotation:
        return Annotation(place, row[self.column], {"video": self.find_media(row[self.key])})
