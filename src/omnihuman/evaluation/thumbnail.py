"""Thumbnails of a sample's frames and faces and a copy of its audio, for the page of an evaluation."""

import wave
from pathlib import Path

import numpy as np
from torch import Tensor

from omnihuman.data.media import SAMPLE_RATE
from omnihuman.data.strip import draw_strip
from omnihuman.types import Sample

HEIGHT = 120
"""Pixels of a strip of frames."""


def save_thumbnails(sample: Sample, folder: Path, name: str) -> dict[str, str]:
    """Write a strip of the frames, a strip of the faces, and the audio of a sample.

    Returns:
        ``frames``, ``faces`` and ``audio`` -> file, relative to the folder's parent; without those that are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    if sample.frames is not None and len(sample.frames):
        files["frames"] = f"{name}_frames.jpg"
        draw_strip(list(sample.frames), HEIGHT).save(folder / files["frames"], quality=80)
    faces = [face for face in sample.faces if face is not None]
    if faces:
        files["faces"] = f"{name}_faces.jpg"
        draw_strip(faces, HEIGHT).save(folder / files["faces"], quality=80)
    if sample.waveform is not None:
        files["audio"] = f"{name}.wav"
        _write_wav(folder / files["audio"], sample.waveform)
    return {kind: f"{folder.name}/{file}" for kind, file in files.items()}


def _write_wav(file: Path, waveform: Tensor) -> None:
    """Write a waveform ``[S]`` in [-1, 1] as 16-bit mono."""
    samples = (np.clip(waveform.numpy(), -1, 1) * 32767).astype("<i2")
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, len(samples), "NONE", ""))
        out.writeframes(samples.tobytes())
