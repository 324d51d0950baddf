"""VGGSound: ten seconds of YouTube videos, 309 sounds, official splits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import AUDIO_SUFFIXES, VIDEO_SUFFIXES, DatasetSource
from omnihuman.source.table import Row

COLUMNS = ("id", "start", "label", "split")


class VGGSoundSource(DatasetSource):
    """The audio of the clips of a copy of VGGSound -> the name of their sound, as text.

    Reference: ``vggsound.csv`` without a header: YouTube id, first second, label, split.

    Args:
        names: of a clip without suffix, with ``{id}``, ``{start}``, ``{end}`` (seconds), ``{start_ms}``, ``{end_ms}``.
        options: of ``DatasetSource``.
    """

    def __init__(self, path: str | Path, root: str | Path, *, names: Sequence[str], **options: Any) -> None:
        super().__init__(path, root, **options)
        self.names = names

    def clips(self) -> Iterator[Annotation]:
        file = self.find("vggsound.csv", "data/vggsound.csv")
        return self.read_rows(file, self._build, COLUMNS, delimiter=",", names=COLUMNS)

    def _build(self, place: str, row: Row) -> Annotation:
        stems = format_names(self.names, row["id"], row["start"], 10.0)
        audio = self.find_media(*stems, suffixes=(*VIDEO_SUFFIXES, *AUDIO_SUFFIXES))
        return Annotation(place, row["label"], {"audio": audio}, split=row["split"])


def format_names(names: Sequence[str], video: str, start: str, seconds: float) -> list[str]:
    """Return the possible names of a clip of a YouTube video.

    >>> format_names(["{id}_{start:06d}", "{id}_{start_ms}_{end_ms}"], "a", "30", 10.0)
    ['a_000030', 'a_30000_40000']

    Raises:
        ValueError: a name has an unknown field.
    """
    first = int(float(start or 0))
    end = int(first + seconds)
    values = {"id": video, "start": first, "end": end, "start_ms": 1000 * first, "end_ms": 1000 * end}
    try:
        return [name.format(**values) for name in names]
    except (KeyError, IndexError) as error:
        raise ValueError(f"source.names={list(names)}: choose from {', '.join(values)} as fields.") from error
