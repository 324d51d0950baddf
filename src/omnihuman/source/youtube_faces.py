"""YouTube Faces: pairs of videos of the same or of different people, ten folds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from omnihuman.data.text_files import read_lines
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource

LABELS = {"1": "Yes", "0": "No"}


class OfficialPair(NamedTuple):
    """A line of the list: its location, fold and number, two folders ``<name>/<number>``, 1 for the same person."""

    location: str
    fold: str
    number: str
    first: str
    second: str
    mark: str


class YouTubeFacesSource(DatasetSource):
    """The official pairs of a copy of YouTube Faces; people of the test fold are in no other.

    Reference: see ``read_pairs``; frames in ``frame_images_DB/<name>/<number>/0.555.jpg``.
    """

    labels = LABELS
    num_folds = 10

    def clips(self) -> Iterator[Annotation]:
        for pair in read_pairs(self.find("splits.txt", "splits_corrected.txt")):
            first, second = (self.find_media(name, suffixes=("",)) for name in (pair.first, pair.second))
            split = "test" if pair.fold == str(self.fold) else "train"
            yield Annotation(pair.location, pair.mark, {"video": first}, split=split, second_clip=second)


def read_pairs(path: Path) -> Iterator[OfficialPair]:
    """Yield the pairs of the official list, whose first line may be a header.

    Reference: ``splits.txt`` (or ``splits_corrected.txt``), 5,000 pairs in ten folds: number of the fold and of the
    pair, two folders, and last 1 for the same person or 0.

    Raises:
        ValueError: a line is invalid.
    """
    for number, (location, line) in enumerate(read_lines(path), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if number == 1 and not re.search(r"/\d", line):
            continue  # the header
        videos = [cell for cell in cells if "/" in cell]
        if len(cells) < 4 or len(videos) != 2 or cells[-1] not in LABELS or not cells[0].isdecimal():
            raise ValueError(
                f"{location}: expected <fold>, <pair>, <name>/<number>, <name>/<number>, ..., 0 or 1; got {line!r}."
            )
        pair_number = cells[1] if cells[1].isdecimal() else str(number)
        yield OfficialPair(location, cells[0], pair_number, videos[0], videos[1], cells[-1])
