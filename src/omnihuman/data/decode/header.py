"""The contents of a file, known without decoding."""

import math
from dataclasses import dataclass, replace

from omnihuman.data.decode.audio import Seconds
from omnihuman.modality import SAMPLE_RATE

MIN_SAMPLES = 400
"""Fewest samples that count as audio: one window of a spectrogram."""


@dataclass(frozen=True, slots=True)
class Track:
    """A video or an audio stream of a file.

    Attributes:
        span: first and last second of audio.
        num_frames: frames of a video; 0 where the header does not tell.
        fps: frames per second.
        is_decodable: there is a decoder for it.
    """

    span: Seconds = (0.0, 0.0)
    num_frames: int = 0
    fps: float = 25.0
    is_decodable: bool = True


@dataclass(frozen=True, slots=True)
class Header:
    """The contents of a file, known without decoding.

    Attributes:
        has_video: the file has frames.
        audio: first and last second of the audio; equal for a file without audio.
        is_still: the file is one image.
        num_frames: frames of the file; 0 where the header does not tell.
        fps: frames per second.
        videos: its video streams; covers are none.
        audios: its audio streams.
        video_stream: the one of ``videos`` that is read, ``None`` for the one that FFmpeg chooses.
        audio_stream: likewise.
        size: height and width of an image, upright.
        notes: for the user: streams that were chosen among several.
    """

    has_video: bool
    audio: Seconds = (0.0, 0.0)
    is_still: bool = False
    num_frames: int = 0
    fps: float = 25.0
    videos: tuple[Track, ...] = ()
    audios: tuple[Track, ...] = ()
    video_stream: int | None = None
    audio_stream: int | None = None
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_audio(self) -> bool:
        """The file has at least one spectrogram window of audio."""
        return self.num_samples() > 0

    @property
    def slots(self) -> set[str]:
        """Slots that the file can fill."""
        slots = {"video": self.has_video, "audio": self.has_audio}
        return {slot for slot, is_available in slots.items() if is_available}

    def num_samples(self, start: float = 0.0, end: float | None = None) -> int:
        """Return the number of 16 kHz audio samples in ``[start, end)``; 0 without audio.

        >>> Header(True, (0.0, 5.0)).num_samples(1.0, 3.5)
        40000
        """
        first, last = self.audio_within(start, end)
        count = math.floor((last - first) * SAMPLE_RATE + 1e-6)
        return count if count >= MIN_SAMPLES else 0

    def audio_within(self, start: float, end: float | None) -> tuple[float, float]:
        """Return first and last second of the audio in ``[start, end)``."""
        first = max(start, self.audio[0])
        return first, min(self.audio[1], math.inf if end is None else end)

    def select(self, video_stream: int | None, audio_stream: int | None) -> "Header":
        """Return the header of other streams of the file, by their numbers; ``None`` changes nothing."""
        header = self
        if video_stream is not None:
            track = self.videos[video_stream]
            header = replace(header, num_frames=track.num_frames, fps=track.fps, video_stream=video_stream)
        if audio_stream is not None:
            header = replace(header, audio=self.audios[audio_stream].span, audio_stream=audio_stream)
        return header
