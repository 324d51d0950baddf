"""MELD: utterances of a series, seven emotions, official splits."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.table import Row

FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
"""Split -> the folder of its clips."""

LABELS = {
    "neutral": "neutral",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "surprise": "surprise",
    "fear": "fear",
    "disgust": "disgust",
}


class MELDSource(DatasetSource):
    """The utterances of a copy of MELD, in its official splits.

    Reference: its repository: ``train_sent_emo.csv`` with the columns ``Emotion``, ``Dialogue_ID`` and
    ``Utterance_ID``, and ``train_splits/dia0_utt0.mp4``. A folder of the split may be above both.
    """

    labels = LABELS

    def clips(self) -> Iterator[Annotation]:
        for split, name in FOLDERS.items():
            table, folder = (self.find(item, f"{split}/{item}") for item in (f"{split}_sent_emo.csv", name))
            columns = ("Emotion", "Dialogue_ID", "Utterance_ID")
            yield from self.read_rows(table, partial(self._build, folder), columns, split)

    def _build(self, folder: Path, place: str, row: Row) -> Annotation:
        stem = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        return Annotation(place, row["Emotion"], {"video": self.find_media(stem, folder=folder)})
