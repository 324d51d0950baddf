"""DFEW: movie clips, seven emotions, five folds."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import read_peers
from omnihuman.benchmark.emotion import Clip, EmotionBenchmark, map_label
from omnihuman.benchmark.text import read_csv

LABELS = {"1": "happy", "2": "sad", "3": "neutral", "4": "angry", "5": "surprise", "6": "disgust", "7": "fear"}
"""Number in a fold file -> HumanOmni's label."""


class DFEW(EmotionBenchmark):
    """A copy of DFEW -> WAR and UAR in percent; see ``EmotionBenchmark`` for the options.

    Reference: ``EmoLabel_DataSplit/test(single-labeled)/set_1.csv`` to ``set_5.csv`` with the columns ``video_name``
    and ``label`` (1 to 7), or ``label/single_testset_1.csv`` as in its author's code; frames in
    ``Clip/clip_224x224/00001/*.jpg``; HumanOmni names the videos without leading zeros.
    """

    name = "dfew"
    labels = tuple(LABELS.values())
    published = read_peers("dfew")
    fold_sizes = (2341, 2341, 2340, 2339, 2336)
    options_text = "happy ,surprise ,neutral ,angry ,disgust ,sad ,fear"

    def __init__(self, root: str, *, media: str = "videos", **options: Any) -> None:
        super().__init__(root, media=media, **options)

    def fold_file(self, fold: int) -> Path:
        folder = self.root / "EmoLabel_DataSplit"
        names = (f"set_{fold}.csv", f"single_testset_{fold}.csv", f"single_test_set_{fold}.csv")
        paths = [folder / "test(single-labeled)" / name for name in names]
        paths += [parent / name for parent, name in product((folder, self.root / "label", self.root), names[1:])]
        for path in paths:
            if path.is_file():
                return path
        raise ValueError(
            f"{paths[0]}: there is no such file, nor {names[1]} or {names[2]} there, in {folder}, in "
            f"{self.root / 'label'} or in {self.root}; set root to the folder DFEW, or remove fold {fold} from folds."
        )

    def read_clips(self, path: Path) -> Iterator[Clip]:
        for location, row in read_csv(path, ("video_name", "label")):
            number = row["video_name"].strip()
            if not number.isdecimal():
                raise ValueError(f"{location}: video_name must be a number, got {number!r}; correct the line.")
            yield Clip(location, f"{int(number):05d}", map_label(LABELS, row["label"].strip(), location))

    def media_stems(self, name: str) -> tuple[str, ...]:
        return str(int(name)), name
