"""RAVDESS: 24 actors who speak or sing two sentences in eight emotions."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Question, check_choices, read_peers
from omnihuman.benchmark.emotion import Clip, EmotionBenchmark
from omnihuman.source.ravdess import CHANNELS, LABELS, MODALITIES

NAME = re.compile(r"(?P<modality>\d\d)-(?P<channel>\d\d)-(?P<emotion>\d\d)-\d\d-\d\d-\d\d-(?P<actor>\d\d)")
"""Modality, channel, emotion, intensity, statement, repetition, actor."""

NUM_ACTORS = 24


class RAVDESS(EmotionBenchmark):
    """A copy of RAVDESS -> WAR and UAR in percent; see ``EmotionBenchmark`` for the other options.

    R1-Omni's third benchmark, on which it was not trained. Its list of clips is not released: its scores are those of
    some part, here all clips of the chosen actors are used.

    Reference: Livingstone and Russo (2018), https://zenodo.org/records/1188976: ``Video_Speech_Actor_01.zip`` to ``24``
    unpack to ``Actor_01/01-01-03-01-01-01-01.mp4``; labels as in R1-Omni's ``eval_ravedess.py``.
    Differs from that script, whose labels are exact strings, and which asks without options.

    Args:
        root: folder of the folders ``Actor_01`` to ``Actor_24``, at any depth.
        channel: ``speech``, which R1-Omni's paper describes, or ``song``.
        actors: numbers of the actors; ``None`` for all.
        options: of ``EmotionBenchmark``.

    Raises:
        ValueError: an option is invalid.
    """

    name = "ravdess"
    labels = tuple(LABELS.values())
    published = read_peers("ravdess")
    fold_sizes: tuple[int, ...] = ()
    options_text = "happy ,surprise ,neutral ,calm ,angry ,disgust ,sad ,fear"

    def __init__(
        self,
        root: str,
        *,
        channel: Literal["speech", "song"] = "speech",
        actors: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        check_choices(channel=(channel, CHANNELS))
        super().__init__(root, folds=[1], media=".", **options)
        self.channel = channel
        self.actors = tuple(range(1, NUM_ACTORS + 1)) if actors is None else tuple(actors)
        if set(self.actors) - {*range(1, NUM_ACTORS + 1)} or len(set(self.actors)) < len(self.actors):
            raise ValueError(f"actors={list(self.actors)}: choose from 1 to {NUM_ACTORS}, each once.")

    def fold_file(self, fold: int) -> Path:
        if not self.root.is_dir():
            raise ValueError(f"{self.root}: there is no such folder; set root to the folder of Actor_01 to Actor_24.")
        return self.root

    def read_clips(self, path: Path) -> Iterator[Clip]:
        for file in sorted(path.rglob("Actor_*/*.mp4")):
            match = NAME.fullmatch(file.stem)
            if match is None or match["emotion"] not in LABELS:
                raise ValueError(
                    f"{file}: a name has seven numbers, the third of them from 01 to 08, as in "
                    "01-01-03-01-01-01-01.mp4; rename the file or move it away."
                )
            is_chosen = match["modality"] == MODALITIES["audio_video"] and match["channel"] == CHANNELS[self.channel]
            if is_chosen and int(match["actor"]) in self.actors:
                name = file.relative_to(path).with_suffix("").as_posix()
                yield Clip(str(file), name, LABELS[match["emotion"]])

    def media_stems(self, name: str) -> tuple[str, ...]:
        return (name,)

    def questions(self) -> list[Question]:
        actors = {path.name for path in self.root.rglob("Actor_*") if path.is_dir()}
        missing = [name for name in map("Actor_{:02d}".format, self.actors) if name not in actors]
        if self.root.is_dir() and missing and not (self.channel == "song" and missing == ["Actor_18"]):
            raise ValueError(
                f"{self.root} has no folder {missing[0]} ({len(missing)} of {len(self.actors)} are missing): unpack "
                "the official archives there, or choose the actors with benchmark.actors=[1, 2]."
            )
        return super().questions()

    def protocol(self) -> dict[str, str]:
        protocol = super().protocol()
        for key in ("folds", "checkpoint", "fold sizes"):
            del protocol[key]
        actors = "all" if len(self.actors) == NUM_ACTORS else ", ".join(map(str, self.actors))
        return {"channel": self.channel, "actors": actors, **protocol}
