"""DFEW: movie clips, seven emotions, five folds."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import VIDEO_SUFFIXES, DatasetSource
from omnihuman.source.table import Row

LABELS = {"1": "happy", "2": "sad", "3": "neutral", "4": "angry", "5": "surprise", "6": "disgust", "7": "fear"}
"""Number in a fold file -> HumanOmni's label."""


class DFEWSource(DatasetSource):
    """The single-label clips of a copy of DFEW, in the official train and test part of a fold.

    Reference: see ``find_fold_file``; frames in ``Clip/clip_224x224/00001/*.jpg``; HumanOmni names the videos without
    leading zeros.
    """

    labels = LABELS
    num_folds = 5

    def clips(self) -> Iterator[Annotation]:
        for split in ("train", "test"):
            file = find_fold_file(self.path, self.fold, split)
            yield from self.read_rows(file, self._build, ("video_name", "label"), split)

    def _build(self, place: str, row: Row) -> Annotation:
        name = row["video_name"]
        video = self.find_media(name.lstrip("0"), name.zfill(5), suffixes=(*VIDEO_SUFFIXES, ""))
        return Annotation(place, row["label"], {"video": video})


def find_fold_file(root: Path, fold: int, split: str) -> Path:
    """Return the file of the clips of a part of a fold.

    Reference: ``EmoLabel_DataSplit/test(single-labeled)/set_1.csv`` to ``set_5.csv`` with the columns ``video_name``
    and ``label`` (1 to 7), or ``label/single_testset_1.csv`` as in its author's code.

    Args:
        root: the folder DFEW.
        fold: 1 to 5.
        split: ``train`` or ``test``.

    Raises:
        ValueError: there is none.
    """
    folder = root / "EmoLabel_DataSplit"
    names = (f"set_{fold}.csv", f"single_{split}set_{fold}.csv", f"single_{split}_set_{fold}.csv")
    paths = [folder / f"{split}(single-labeled)" / name for name in names]
    paths += [parent / name for parent, name in product((folder, root / "label", root), names[1:])]
    for path in paths:
        if path.is_file():
            return path
    raise ValueError(
        f"{paths[0]}: there is no such file, nor {names[1]} or {names[2]} there, in {folder}, in {root / 'label'} or "
        f"in {root}; name the folder DFEW, or leave fold {fold} out."
    )
