"""CMU-MOSEI: utterances of YouTube monologues, their sentiment, official splits."""

from collections.abc import Iterator

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.table import Row

LABELS = {"Negative": "negative", "Neutral": "neutral", "Positive": "positive"}


class CMUMOSEISource(DatasetSource):
    """The utterances of MMSA's copy of CMU-MOSEI, in its official splits.

    Reference: MMSA: ``label.csv`` with the columns ``video_id``, ``clip_id``, ``annotation`` (``Positive``) and
    ``mode`` (``train``), and ``Raw/<video_id>/<clip_id>.mp4``.
    """

    labels = LABELS

    def clips(self) -> Iterator[Annotation]:
        return self.read_rows(self.find("label.csv"), self._build, ("video_id", "clip_id", "annotation", "mode"))

    def _build(self, place: str, row: Row) -> Annotation:
        video = self.find_media(f"{row['video_id']}/{row['clip_id']}")
        return Annotation(place, row["annotation"], {"video": video}, split=row["mode"])
