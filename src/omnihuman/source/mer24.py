"""MER2024: clips of Chinese films and series, six emotions."""

from collections.abc import Iterator

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.table import Row

LABELS = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "worried": "worried",
    "surprise": "surprise",
}


class MER24Source(DatasetSource):
    """The labeled clips of MER2024, those of ``label-disdim.csv`` with the columns ``name`` and ``discrete``."""

    labels = LABELS

    def clips(self) -> Iterator[Annotation]:
        return self.read_rows(self.find("label-disdim.csv"), self._build, ("name", "discrete"))

    def _build(self, place: str, row: Row) -> Annotation:
        return Annotation(place, row["discrete"], {"video": self.find_media(row["name"])})
