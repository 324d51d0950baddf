"""MAFW: clips with sound, eleven emotions, five folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Question, check_switches, lines_of
from omnihuman.benchmark.emotion import Clip, EmotionBenchmark, label_at, peers_of
from omnihuman.data.media import probe

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
"""The noun that a fold file holds -> the word that HumanOmni answers; in the official order."""

ORDERS = {
    "official": tuple(LABELS),
    "dfer_clip": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", *tuple(LABELS)[7:]),
}
"""Two orders are about, in which numbers mean different emotions: here a label is always a word."""


class MAFW(EmotionBenchmark):
    """A copy of MAFW -> WAR and UAR in percent; see ``EmotionBenchmark`` for the other switches.

    Reference: ``Train & Test Set/single/no_caption/set_1/test.txt`` to ``set_5`` (some copies say ``split``), a line
    ``00025.mp4 anger`` for each clip; clips in ``data/clips``, pictures in ``data/frames/00025``.

    Args:
        root: the folder MAFW.
        media: folder below it that holds the clips.
        captions: ``no_caption``, or ``with_caption`` for the folds of the clips that have captions.
        order: of the labels in confusion matrices: ``official``, as HiCMAE and MAE-DFER, or ``dfer_clip``, as MMA-DFER.
        drop_silent: leave out clips without sound, as HiCMAE does (21 in all); else they are asked without.
        switches: of ``EmotionBenchmark``.
    """

    name = "mafw"
    peers = peers_of("mafw")
    counts: tuple[int, ...] = (1839, 1837, 1833, 1832, 1831)
    options_text = "happy ,surprise ,neutral ,angry ,disgust ,sad ,fear ,contemptuous, disappointed, helpless, anxious"

    def __init__(
        self,
        root: str,
        *,
        media: str = "data/clips",
        captions: Literal["no_caption", "with_caption"] = "no_caption",
        order: Literal["official", "dfer_clip"] = "official",
        drop_silent: bool = False,
        **switches: Any,
    ) -> None:
        check_switches(captions=(captions, ("no_caption", "with_caption")), order=(order, ORDERS))
        super().__init__(root, media=media, **switches)
        self.captions, self.order, self.drop_silent = captions, order, drop_silent
        self.labels = tuple(LABELS[noun] for noun in ORDERS[order])
        if captions == "with_caption":
            self.counts = ()
        self._dropped = 0

    def fold_file(self, fold: int) -> Path:
        part = Path("single") / self.captions / f"set_{fold}" / "test.txt"
        tried = [self.root / folder / part for folder in ("Train & Test Set", "split")]
        tried.append(self.root / "split" / Path(*part.parts[1:]))
        found = next((path for path in tried if path.is_file()), None)
        if found is None:
            raise ValueError(
                f"{tried[0]}: there is no such file, nor {tried[1]}; root is the folder MAFW, or leave fold {fold} out "
                "of folds."
            )
        return found

    def clips(self, path: Path) -> Iterator[Clip]:
        for where, line in lines_of(path):
            words = line.split()
            if len(words) != 2:
                raise ValueError(f"{where}: a line is <clip> <emotion>, found {line!r}; correct it.")
            yield Clip(where, Path(words[0]).stem, label_at(LABELS, words[1], where))

    def stems(self, name: str) -> tuple[str, ...]:
        return (name, str(int(name))) if name.isdecimal() else (name,)

    def questions(self) -> list[Question]:
        self._dropped = 0
        return super().questions()

    def silent(self, clip: Clip, file: Path, sound: Path | None) -> bool:
        if not self.drop_silent or (sound is not None):
            return False
        lacks = file.is_dir() or not probe(file).has_audio
        self._dropped += lacks
        return lacks

    def protocol(self) -> dict[str, str]:
        said = super().protocol() | {"fold files": self.captions}
        how = f"{self._dropped} left out, as HiCMAE does" if self.drop_silent else "asked without sound"
        return said | {"silent clips": how}
