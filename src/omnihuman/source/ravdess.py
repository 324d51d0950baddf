"""RAVDESS: actors in a studio, eight emotions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource

MODALITIES = {"audio_video": "01", "video": "02", "audio": "03"}
"""First number of a file's name; the same takes are there without audio and without frames."""

CHANNELS = {"speech": "01", "song": "02"}
"""Vocal channel -> second number of a file's name."""

LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
"""Third number of a file's name -> label; R1-Omni writes fear and surprise for fearful and surprised."""


class RAVDESSSource(DatasetSource):
    """The clips of a copy of RAVDESS, whose names are seven numbers: ``01-01-06-01-02-01-12.mp4``.

    Reference: Livingstone and Russo (PLoS ONE 2018): modality, channel, emotion, intensity, statement, repetition and
    actor.

    Args:
        modality: ``audio_video``, ``video`` without audio, or ``audio``.
        channel: ``speech`` or ``song``.
        options: of ``DatasetSource``.
    """

    labels = LABELS

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        modality: str = "audio_video",
        channel: str = "speech",
        **options: Any,
    ) -> None:
        for name, value, choices in (("modality", modality, MODALITIES), ("channel", channel, CHANNELS)):
            if value not in choices:
                raise ValueError(f"source.{name}={value}: choose from {', '.join(choices)}.")
        super().__init__(path, root, **options)
        self.kind = "audio" if modality == "audio" else "video"
        self.pattern = f"{MODALITIES[modality]}-{CHANNELS[channel]}-??-??-??-??-??.*"

    def clips(self) -> Iterator[Annotation]:
        files = sorted(self.path.rglob(self.pattern), key=lambda file: file.name)
        if not files:
            raise ValueError(f"path={self.path}: expected files Actor_01/{self.pattern} in this folder, got none.")
        for file in files:
            numbers = file.stem.split("-")
            yield Annotation(str(file), numbers[2], {self.kind: self.make_relative(file)}, person=f"Actor_{numbers[6]}")
