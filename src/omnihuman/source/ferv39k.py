"""FERV39k: faces in 22 scenes, seven emotions, official splits."""

from collections.abc import Iterator

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import VIDEO_SUFFIXES, DatasetSource
from omnihuman.source.table import Row

COLUMNS = ("clip", "label")

LABELS = {
    "Happy": "happy",
    "Sad": "sad",
    "Neutral": "neutral",
    "Angry": "angry",
    "Surprise": "surprise",
    "Disgust": "disgust",
    "Fear": "fear",
}


class FERV39kSource(DatasetSource):
    """The clips of a copy of FERV39k, folders of frames, in the official splits of all scenes.

    Reference: ``4_setups/All_scenes/train_All.csv`` with a line ``Action/Sad/0010 Sad`` for each clip.
    """

    labels = LABELS

    def clips(self) -> Iterator[Annotation]:
        for split in ("train", "test"):
            names = [f"{folder}All_scenes/{split}_All.csv" for folder in ("4_setups/", "")]
            yield from self.read_rows(self.find(*names), self._build, COLUMNS, split, delimiter=" ", names=COLUMNS)

    def _build(self, place: str, row: Row) -> Annotation:
        return Annotation(place, row["label"], {"video": self.find_media(row["clip"], suffixes=("", *VIDEO_SUFFIXES))})
