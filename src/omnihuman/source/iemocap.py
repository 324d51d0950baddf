"""IEMOCAP: dialogs of two actors, ten emotions, a fold for each session."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.data.text_files import read_lines
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource

TURN = re.compile(r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<turn>\w+)\t(?P<label>\w+)\t")
UNLABELED = ("xxx", "oth")
"""No agreement, and another emotion than those of the list."""

LABELS = {
    "ang": "angry",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "neu": "neutral",
    "fru": "frustrated",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
}


class IEMOCAPSource(DatasetSource):
    """The turns of a copy of IEMOCAP with an emotion; the session ``fold`` is the test split.

    Reference: ``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`` with a line ``[6.2901 - 8.2357]``,
    ``Ses01F_impro01_F000``, ``neu``, ``[2.5, 2.5, 2.5]`` for each turn, separated by tabs.

    Args:
        modality: ``audio``, or ``video`` for the turn's seconds in the film of both actors.
        options: of ``DatasetSource``.
    """

    labels = LABELS
    num_folds = 5

    def __init__(self, path: str | Path, root: str | Path, *, modality: str = "audio", **options: Any) -> None:
        if modality not in ("audio", "video"):
            raise ValueError(f"source.modality={modality}: choose from audio, video.")
        super().__init__(path, root, **options)
        self.modality = modality

    def clips(self) -> Iterator[Annotation]:
        num_unlabeled = 0
        for session in range(1, self.num_folds + 1):
            folder = self.find(f"Session{session}")
            for file in sorted((folder / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
                for place, line in read_lines(file):
                    match = TURN.match(line)
                    if match and match["label"] not in UNLABELED:
                        split = "test" if session == self.fold else "train"
                        yield self._build(place, match, folder, file.stem, split)
                    num_unlabeled += match is not None and match["label"] in UNLABELED
        self.notes.append(f"turns without agreement on an emotion of the list: {num_unlabeled}")

    def _build(self, place: str, turn: re.Match[str], folder: Path, dialog: str, split: str) -> Annotation:
        person = f"{folder.name}_{turn['turn'].rpartition('_')[2][0]}"  # F000: the first turn of the woman
        if self.modality == "audio":
            audio = folder / "sentences" / "wav" / dialog / f"{turn['turn']}.wav"
            return Annotation(place, turn["label"], {"audio": self.make_relative(audio)}, split=split, person=person)
        files = {"video": self.make_relative(folder / "dialog" / "avi" / "DivX" / f"{dialog}.avi")}
        start, end = turn["start"], turn["end"]
        return Annotation(place, turn["label"], files, start=start, end=end, split=split, person=person)
