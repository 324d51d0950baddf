"""AudioSet: ten seconds of YouTube videos, 527 sounds, official splits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import AUDIO_SUFFIXES, VIDEO_SUFFIXES, DatasetSource
from omnihuman.source.table import Row, read_table
from omnihuman.source.vggsound import format_names

COLUMNS = ("id", "start", "end", "labels")
FILES = {
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "test",
}
"""Official table -> its split."""


class AudioSetSource(DatasetSource):
    """The segments of those tables of AudioSet that are there -> the names of their sounds, separated by commas.

    Reference: research.google.com/audioset: three lines that begin with ``#``, then YouTube id, first and last second,
    and labels in quotes; ``class_labels_indices.csv`` with the columns ``mid`` and ``display_name``.

    Args:
        names: of a segment without suffix, see ``VGGSoundSource``.
        options: of ``DatasetSource``.
    """

    def __init__(self, path: str | Path, root: str | Path, *, names: Sequence[str], **options: Any) -> None:
        super().__init__(path, root, **options)
        self.names, self.sounds = names, dict[str, str]()

    def clips(self) -> Iterator[Annotation]:
        for number, row in read_table(self.find("class_labels_indices.csv")).rows:
            if not isinstance(row, dict) or not {"mid", "display_name"} <= set(row):
                raise ValueError(f"{self.path}/class_labels_indices.csv:{number}: expected mid and display_name.")
            self.sounds[row["mid"]] = row["display_name"]
        tables = [name for name in FILES if (self.path / name).is_file()]
        if not tables:
            self.find(*FILES)
        for name in tables:
            yield from self.read_rows(self.path / name, self._build, COLUMNS, FILES[name], delimiter=",", names=COLUMNS)

    def _build(self, place: str, row: Row) -> Annotation | None:
        if row["id"].startswith("#"):
            return None
        answer = ", ".join(self.sounds.get(label, label) for label in row["labels"].split(","))
        stems = format_names(self.names, row["id"], row["start"], float(row["end"] or 0) - float(row["start"] or 0))
        audio = self.find_media(*stems, suffixes=(*AUDIO_SUFFIXES, *VIDEO_SUFFIXES))
        return Annotation(place, answer, {"audio": audio})
