"""MAFW: audiovisual clips, eleven emotions, five folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import VIDEO_SUFFIXES, DatasetSource
from omnihuman.source.table import Row

CAPTIONS = ("no_caption", "with_caption")

LABELS = {
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprise",
    "contempt": "contemptuous",
    "anxiety": "anxious",
    "helplessness": "helpless",
    "disappointment": "disappointed",
}
"""Noun in a fold file -> HumanOmni's label, in the official order."""


class MAFWSource(DatasetSource):
    """The single-label clips of a copy of MAFW, in the official train and test part of a fold.

    Reference: see ``find_fold_file``; clips in ``data/clips``, frames in ``data/frames/00025``.

    Args:
        captions: ``no_caption``, or ``with_caption`` for the folds of the captioned clips.
        options: of ``DatasetSource``.
    """

    labels = LABELS
    num_folds = 5

    def __init__(self, path: str | Path, root: str | Path, *, captions: str = "no_caption", **options: Any) -> None:
        if captions not in CAPTIONS:
            raise ValueError(f"source.captions={captions}: choose from {', '.join(CAPTIONS)}.")
        super().__init__(path, root, **options)
        self.captions = captions

    def clips(self) -> Iterator[Annotation]:
        columns = ("clip", "label")
        for split in ("train", "test"):
            file = find_fold_file(self.path, self.captions, self.fold, split)
            yield from self.read_rows(file, self._build, columns, split, delimiter=" ", names=columns)

    def _build(self, place: str, row: Row) -> Annotation:
        video = self.find_media(Path(row["clip"]).stem, suffixes=(*VIDEO_SUFFIXES, ""))
        return Annotation(place, row["label"], {"video": video})


def find_fold_file(root: Path, captions: str, fold: int, split: str) -> Path:
    """Return the file of the clips of a part of a fold, a line ``00025.mp4 anger`` for each.

    Reference: ``Train & Test Set/single/no_caption/set_1/test.txt`` to ``set_5``, in some copies below ``split``.

    Args:
        root: the folder MAFW.
        captions: ``no_caption`` or ``with_caption``.
        fold: 1 to 5.
        split: ``train`` or ``test``.

    Raises:
        ValueError: there is none.
    """
    part = Path(captions) / f"set_{fold}" / f"{split}.txt"
    paths = [
        root / "Train & Test Set" / "single" / part,
        root / "split" / "single" / part,
        root / "split" / part,
    ]
    for path in paths:
        if path.is_file():
            return path
    raise ValueError(
        f"{paths[0]}: there is no such file, nor {paths[1]}; name the folder MAFW, or leave fold {fold} out."
    )
