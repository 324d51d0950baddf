"""Media of a row that a language model gets: crops of a face through time, and the sound of the clip."""

import io
import wave
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from omnihuman.judge.media import Media
from omnihuman.modality import SAMPLE_RATE
from omnihuman.operator.base import Row
from omnihuman.operator.sound import read_sound

MARGIN = 0.25
"""Share of the box that is added on every side of a face (FaceXFormer's margin)."""

MAX_DISTANCE = 0.3
"""Seconds between a frame and the nearest box of a track, above which the frame is left out."""


def rank_tracks(tracks: Sequence[Row]) -> list[Row]:
    """Return the tracks of a clip, the one with the most boxes first, of these the one with the largest.

    >>> tracks = [{"track": 0, "boxes": [[0, 0, 2, 2]]}, {"track": 1, "boxes": [[0, 0, 1, 1]] * 2}]
    >>> [track["track"] for track in rank_tracks(tracks)]
    [1, 0]
    """
    return sorted(tracks, key=lambda track: (-len(track["boxes"]), -max(map(_measure, track["boxes"]), default=0.0)))


def _measure(box: Sequence[float]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def crop_track(row: Row, track: Mapping[str, Any]) -> list[Media]:
    """Return crops of a face, one for each of the row's ``face_frames`` that is near a box of the track.

    Args:
        row: with ``face_frames`` and ``width``, that of the file, in whose pixels the boxes are.
        track: of ``faces``.
    """
    crops = []
    for frame in row["face_frames"]:
        distances = [abs(time - frame["time"]) for time in track["times"]]
        if distances and min(distances) <= MAX_DISTANCE:
            box = track["boxes"][distances.index(min(distances))]
            crops.append(Media("image", _crop(frame["jpeg"], box, row["width"])))
    return crops


def _crop(jpeg: bytes, box: Sequence[float], width: int) -> bytes:
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    scale = image.width / width
    x0, y0, x1, y1 = (side * scale for side in box)
    wide, high = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    left, top = max(0, round(x0 - wide)), max(0, round(y0 - high))
    right, bottom = min(image.width, round(x1 + wide)), min(image.height, round(y1 + high))
    buffer = io.BytesIO()
    image.crop((left, top, max(right, left + 1), max(bottom, top + 1))).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def encode_sound(row: Row, timeout: float = 60.0) -> bytes:
    """Return the sound of a clip as a wav file of 16-bit mono samples, without samples for a clip without sound.

    Args:
        row: with ``seconds``, that of the clip.
        timeout: seconds for the file.
    """
    waveform, _ = read_sound(row, timeout)
    samples = b""
    if waveform is not None:
        samples = (waveform.clamp(-1, 1) * 32767).round().short().numpy().tobytes()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples)
    return buffer.getvalue()
