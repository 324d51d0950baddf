"""DFEW: movie clips, seven emotions, five folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import read_peers
from omnihuman.benchmark.emotion import Clip, EmotionBenchmark, map_label
from omnihuman.benchmark.text import read_csv
from omnihuman.source.dfew import LABELS, find_fold_file


class DFEW(EmotionBenchmark):
    """A copy of DFEW -> WAR and UAR in percent; see ``EmotionBenchmark`` for the options.

    Reference: see ``DFEWSource`` for the official files.
    """

    name = "dfew"
    labels = tuple(LABELS.values())
    published = read_peers("dfew")
    fold_sizes = (2341, 2341, 2340, 2339, 2336)
    options_text = "happy ,surprise ,neutral ,angry ,disgust ,sad ,fear"

    def __init__(self, root: str, *, media: str = "videos", **options: Any) -> None:
        super().__init__(root, media=media, **options)

    def fold_file(self, fold: int) -> Path:
        return find_fold_file(self.root, fold, "test")

    def read_clips(self, path: Path) -> Iterator[Clip]:
        for location, row in read_csv(path, ("video_name", "label")):
            number = row["video_name"].strip()
            if not number.isdecimal():
                raise ValueError(f"{location}: video_name must be a number, got {number!r}; correct the line.")
            yield Clip(location, f"{int(number):05d}", map_label(LABELS, row["label"].strip(), location))

    def media_stems(self, name: str) -> tuple[str, ...]:
        return str(int(name)), name
