"""CAER: clips of TV shows, seven emotions, official splits."""

from collections.abc import Iterator

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource

LABELS = {
    "Anger": "angry",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprise",
}


class CAERSource(DatasetSource):
    """The clips of a copy of CAER, in a folder for each split and emotion: ``train/Anger/0001.avi``."""

    labels = LABELS

    def clips(self) -> Iterator[Annotation]:
        for split in ("train", "validation", "test"):
            for file in self.list_media(self.find(split), "*/*"):
                yield Annotation(str(file), file.parent.name, {"video": self.make_relative(file)}, split=split)
