"""MAFW: audiovisual clips, eleven emotions, five folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Question, check_choices, read_peers
from omnihuman.benchmark.emotion import Clip, EmotionBenchmark, map_label
from omnihuman.data.media import probe
from omnihuman.data.text_files import read_lines

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

ORDERS = {
    "official": tuple(LABELS),
    "dfer_clip": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", *tuple(LABELS)[7:]),
}
"""Two orders of the classes are common, so a class number is ambiguous; here labels are always words."""


class MAFW(EmotionBenchmark):
    """A copy of MAFW -> WAR and UAR in percent; see ``EmotionBenchmark`` for the other options.

    Reference: ``Train & Test Set/single/no_caption/set_1/test.txt`` to ``set_5`` (in some copies below ``split``), with
    a line ``00025.mp4 anger`` per clip; clips in ``data/clips``, frames in ``data/frames/00025``.

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
        check_choices(captions=(captions, ("no_caption", "with_caption")), order=(order, ORDERS))
        super().__init__(root, media=media, **options)
        self.captions, self.order, self.drop_silent = captions, order, drop_silent
        self.labels = tuple(LABELS[noun] for noun in ORDERS[order])
        if captions == "with_caption":
            self.fold_sizes = ()
        self._num_dropped = 0

    def fold_file(self, fold: int) -> Path:
        part = Path(self.captions) / f"set_{fold}" / "test.txt"
        paths = [
            self.root / "Train & Test Set" / "single" / part,
            self.root / "split" / "single" / part,
            self.root / "split" / part,
        ]
        for path in paths:
            if path.is_file():
                return path
        raise ValueError(
            f"{paths[0]}: there is no such file, nor {paths[1]}; set root to the folder MAFW, or remove fold {fold} "
            "from folds."
        )

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
