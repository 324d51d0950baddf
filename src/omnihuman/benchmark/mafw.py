"""MAFW: audiovisual clips, eleven emotions, five folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Question, check_choices, read_peers
from omnihuman.benchmark.emotion import Clip, EmotionBenchmark, map_label
from omnihuman.data.media import probe
from omnihuman.data.text_files import read_lines
from omnihuman.source.mafw import CAPTIONS, LABELS, find_fold_file

ORDERS = {
    "official": tuple(LABELS),
    "dfer_clip": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", *tuple(LABELS)[7:]),
}
"""Two orders of the classes are common, so a class number is ambiguous; here labels are always words."""


class MAFW(EmotionBenchmark):
    """A copy of MAFW -> WAR and UAR in percent; see ``EmotionBenchmark`` for the other options.

    Reference: see ``MAFWSource`` for the official files.

    Args:
        root: the folder MAFW.
        media: folder below it with the clips.
        captions: ``no_caption``, or ``with_caption`` for the folds of the captioned clips.
        order: of the classes in confusion matrices: ``official``, as HiCMAE and MAE-DFER, or ``dfer_clip``, as
            MMA-DFER.
        drop_silent: drop clips without audio, as HiCMAE does (21 in total); else they are answered without it.
        options: of ``EmotionBenchmark``.
    """

    name = "mafw"
    published = read_peers("mafw")
    fold_sizes: tuple[int, ...] = (1839, 1837, 1833, 1832, 1831)
    options_text = "happy ,surprise ,neutral ,angry ,disgust ,sad ,fear ,contemptuous, disappointed, helpless, anxious"

    def __init__(
        self,
        root: str,
        *,
        media: str = "data/clips",
        captions: Literal["no_caption", "with_caption"] = "no_caption",
        order: Literal["official", "dfer_clip"] = "official",
        drop_silent: bool = False,
        **options: Any,
    ) -> None:
        check_choices(captions=(captions, CAPTIONS), order=(order, ORDERS))
        super().__init__(root, media=media, **options)
        self.captions, self.order, self.drop_silent = captions, order, drop_silent
        self.labels = tuple(LABELS[noun] for noun in ORDERS[order])
        if captions == "with_caption":
            self.fold_sizes = ()
        self._num_dropped = 0

    def fold_file(self, fold: int) -> Path:
        return find_fold_file(self.root, self.captions, fold, "test")

    def read_clips(self, path: Path) -> Iterator[Clip]:
        for location, line in read_lines(path):
            words = line.split()
            if len(words) != 2:
                raise ValueError(f"{location}: expected <clip> <emotion>, got {line!r}; correct the line.")
            yield Clip(location, Path(words[0]).stem, map_label(LABELS, words[1], location))

    def media_stems(self, name: str) -> tuple[str, ...]:
        return (name, str(int(name))) if name.isdecimal() else (name,)

    def questions(self) -> list[Question]:
        self._num_dropped = 0
        return super().questions()

    def is_dropped(self, file: Path, audio: Path | None) -> bool:
        if not self.drop_silent or audio is not None:
            return False
        is_silent = file.is_dir() or not probe(file).has_audio
        self._num_dropped += is_silent
        return is_silent

    def protocol(self) -> dict[str, str]:
        silent = f"{self._num_dropped} dropped, as in HiCMAE" if self.drop_silent else "answered without audio"
        return super().protocol() | {"fold files": self.captions, "silent clips": silent}
