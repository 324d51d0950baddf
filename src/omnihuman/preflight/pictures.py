"""Pictures of records inside a page: frames, faces and spectrogram as data URIs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from omnihuman.corpus.sheet import compute_log_mel
from omnihuman.data.module import OmniData
from omnihuman.data.strip import draw_strip
from omnihuman.modality import SAMPLE_RATE
from omnihuman.preflight.summary import Item, describe_clip

FRAME_HEIGHT, FACE_HEIGHT, AUDIO_HEIGHT = 84, 56, 48
"""Pixels of the strips."""

MAX_FRAMES = 8


@dataclass(frozen=True)
class Card:
    """A record on the page.

    Attributes:
        item: the record.
        clip: file and span.
        turns: (role, text).
        tokens: of each usable view.
        images: kind -> data URI.
        error: why there is no image.
    """

    item: Item
    clip: str
    turns: Sequence[tuple[str, str]]
    tokens: str
    images: dict[str, str] = field(default_factory=dict)
    error: str = ""


def build_card(item: Item, data: OmniData) -> Card:
    """Return a usable record with its pictures."""
    assert item.verdict is not None and not isinstance(item.entry, tuple)
    tokens = ", ".join(f"{length:,}" for length in item.verdict.lengths)
    images, error = dict[str, str](), ""
    try:
        samples = data.plan_entries([item.entry])
        # the view that needs most shows most
        planned = max(samples.planned, key=lambda planned: planned.length)
        sample = samples.sample(planned)
    except Exception as caught:  # the file has changed since the check
        error = f"{type(caught).__name__}: {caught}"
    else:
        if sample.frames is not None and len(sample.frames):
            stride = -(-len(sample.frames) // MAX_FRAMES)
            images["frames"] = _to_uri(draw_strip(list(sample.frames[::stride]), FRAME_HEIGHT))
        faces = [face for face in sample.faces if face is not None][:MAX_FRAMES]
        if faces:
            images["faces"] = _to_uri(draw_strip(faces, FACE_HEIGHT))
        if sample.waveform is not None:
            images["audio"] = _to_uri(draw_spectrogram(sample.waveform))
    return Card(item, describe_clip(item), item.entry.messages, tokens, images, error)


def draw_spectrogram(waveform: Tensor, max_width: int = 400) -> Image.Image:
    """Return the log-mel spectrogram of a waveform ``[S]``, low frequencies at the bottom."""
    samples = np.pad(waveform.numpy(), (0, max(0, 400 - len(waveform))))
    mel = compute_log_mel(samples[: 30 * SAMPLE_RATE])
    levels = np.clip((mel.T[::-1] + 4) / 6, 0, 1)
    picture = Image.fromarray((255 * levels).astype(np.uint8))
    width = max(60, min(max_width, picture.width))
    return picture.resize((width, AUDIO_HEIGHT), Image.Resampling.BILINEAR)


def _to_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
