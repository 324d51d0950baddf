"""What the model saw and heard of a sample, small enough for a page."""

from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image

from omnihuman.data.media import SAMPLE_RATE
from omnihuman.types import Sample

HEIGHT = 120
"""Pixels of a strip of frames."""


def keep(sample: Sample, folder: Path, name: str) -> dict[str, str]:
    """Write a strip of the frames, one of the faces, and the sound; which file is where, relative to the evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, str] = {}
    faces = [face for face in sample.faces if face is not None]
    for kind, pictures in (("frames", [] if sample.frames is None else list(sample.frames)), ("faces", faces)):
        if pictures:
            small = [F.resize(p, [HEIGHT, max(1, round(p.shape[2] * HEIGHT / p.shape[1]))]) for p in pictures]
            strip = torch.cat(small, dim=2).permute(1, 2, 0).numpy()
            Image.fromarray(strip).save(folder / f"{name}_{kind}.jpg", quality=80)
            kept[kind] = f"{folder.name}/{name}_{kind}.jpg"
    if sample.waveform is not None:
        _write_wav(folder / f"{name}.wav", sample.waveform.numpy())
        kept["sound"] = f"{folder.name}/{name}.wav"
    return kept


def _write_wav(file: Path, waveform: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> None:
    import wave

    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, len(waveform), "NONE", ""))
        out.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
