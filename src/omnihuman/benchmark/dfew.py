"""DFEW: clips of films, seven emotions, five folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.benchmark.emotion import Clip, EmotionBenchmark, label_at, peers_of
from omnihuman.benchmark.text import rows

LABELS = {"1": "happy", "2": "sad", "3": "neutral", "4": "angry", "5": "surprise", "6": "disgust", "7": "fear"}
"""The number that a fold file holds -> HumanOmni's word."""


class DFEW(EmotionBenchmark):
    """A copy of DFEW -> WAR and UAR in percent; see ``EmotionBenchmark`` for the switches.

    Reference: ``EmoLabel_DataSplit/test(single-labeled)/set_1.csv`` to ``set_5.csv`` with the columns ``video_name``
    and ``label`` (1 to 7), or ``label/single_testset_1.csv`` as its author's own code names them; pictures
    in ``Clip/clip_224x224/00001/*.jpg``; films are named without leading zeros where HumanOmni names them.
    """

    name = "dfew"
    labels = tuple(LABELS.values())
    peers = peers_of("dfew")
    counts = (2341, 2341, 2340, 2339, 2336)
    options_text = "happy ,surprise ,neutral ,angry ,disgust ,sad ,fear"

    def __init__(self, root: str, *, media: str = "videos", **switches: Any) -> None:
        super().__init__(root, media=media, **switches)

    def fold_file(self, fold: int) -> Path:
        folder = self.root / "EmoLabel_DataSplit"
        names = (f"set_{fold}.csv", f"single_testset_{fold}.csv", f"single_test_set_{fold}.csv")
        tried = [folder / "test(single-labeled)" / name for name in names]
        tried += [place / name for place in (folder, self.root / "label", self.root) for name in names[1:]]
        found = next((path for path in tried if path.is_file()), None)
        if found is None:
            raise ValueError(
                f"{tried[0]}: there is no such file, nor {names[1]} or {names[2]} there, in {folder}, in "
                f"{self.root / 'label'} or in {self.root}; root is the folder DFEW, or leave fold {fold} out of folds."
            )
        return found

    def clips(self, path: Path) -> Iterator[Clip]:
        for where, row in rows(path, ("video_name", "label")):
            number = row["video_name"].strip()
            if not number.isdecimal():
                raise ValueError(f"{where}: video_name is a number, found {number!r}; correct the line.")
            yield Clip(where, f"{int(number):05d}", label_at(LABELS, row["label"].strip(), where))

    def stems(self, name: str) -> tuple[str, ...]:
        return str(int(name)), name
