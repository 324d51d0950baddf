"""FaceForensics++: real faces of YouTube videos, and the same faces manipulated, official splits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.data.text_files import read_json
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
COMPRESSIONS = ("raw", "c23", "c40")
LABELS = {"real": "real", "fake": "fake"}


class FaceForensicsSource(DatasetSource):
    """The original videos of a copy of FaceForensics++, and those of the manipulations that are there.

    Reference: its repository: ``original_sequences/youtube/c23/videos/000.mp4``,
    ``manipulated_sequences/Deepfakes/c23/videos/000_003.mp4``, and ``splits/train.json`` with pairs ``["000", "003"]``.
    Both faces of a pair are in one split.

    Args:
        compression: ``raw``, ``c23`` or ``c40``.
        options: of ``DatasetSource``.
    """

    labels = LABELS

    def __init__(self, path: str | Path, root: str | Path, *, compression: str = "c23", **options: Any) -> None:
        if compression not in COMPRESSIONS:
            raise ValueError(f"source.compression={compression}: choose from {', '.join(COMPRESSIONS)}.")
        super().__init__(path, root, **options)
        self.compression = compression

    def clips(self) -> Iterator[Annotation]:
        originals = self.find(f"original_sequences/youtube/{self.compression}/videos")
        manipulated = [self.path / f"manipulated_sequences/{method}/{self.compression}/videos" for method in METHODS]
        for split in ("train", "val", "test"):
            file = self.find(f"splits/{split}.json", f"dataset/splits/{split}.json", f"{split}.json")
            for number, pair in enumerate(read_json(file)):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise ValueError(f"{file}: [{number}] is {pair!r:.80}; expected two numbers of videos.")
                clips = [(originals, name, "real") for name in pair]
                for folder in filter(Path.is_dir, manipulated):
                    clips += [(folder, "_".join(names), "fake") for names in (pair, pair[::-1])]
                for folder, name, answer in clips:
                    video, person = self.find_media(name, folder=folder), "_".join(sorted(pair))
                    yield Annotation(f"{file}[{number}]", answer, {"video": video}, split=split, person=person)
