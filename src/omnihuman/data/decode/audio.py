"""The audio of a file: where it begins and ends, and its samples at 16 kHz."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omnihuman.data.decode.clock import TOLERANCE, file_origin
from omnihuman.data.decode.packets import JITTER, Check
from omnihuman.data.decode.riff import has_open_end
from omnihuman.data.record import BadSample
from omnihuman.modality import SAMPLE_RATE

ESTIMATED_DURATION = {"mp3", "aac", "ac3", "amr", "mpegts", "mpeg", "flv", "ogg", "asf"}
"""Formats whose header does not hold the duration of the audio."""

Seconds = tuple[float, float]
"""First and last second."""


def measure_audio(path: Path, container: Any, streams: Sequence[Any], check: Check) -> list[Seconds]:
    """Return first and last second of audio streams, counted packet by packet where the header does not hold them."""
    origin = file_origin(container)
    is_estimated = not ESTIMATED_DURATION.isdisjoint(container.format.name.split(","))
    has_duration = all(stream.duration is not None for stream in streams)
    is_open = has_open_end(path)
    if has_duration and not is_estimated and not is_open:
        return [_read_span(stream, origin) for stream in streams]
    spans = {stream.index: (math.inf, 0.0) for stream in streams}
    for packet in container.demux(list(streams)):
        check()
        if packet.pts is not None and packet.size:
            first, last = spans[packet.stream_index]
            begin = float(packet.pts * packet.time_base) - origin
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin
            spans[packet.stream_index] = min(first, begin), max(last, end)
    counted = [(max(0.0, first), last) if last > first else (0.0, 0.0) for first, last in spans.values()]
    if is_estimated or len(container.streams) > 1:
        return counted
    [(first, last)] = counted
    if is_open and has_duration:  # FFmpeg's is that of the bytes; the last block may be shorter than its duration
        return [(first, min(last, _read_span(streams[0], origin)[1]))]
    # Matroska has one duration, that of the file. A file that is cut ends before.
    promised = (container.duration or 0) / av.time_base - origin
    return [(first, promised if promised > last + TOLERANCE else last)]


def _read_span(stream: Any, origin: float) -> Seconds:
    begin = 0.0
    if stream.start_time is not None:
        begin = float(stream.start_time * stream.time_base) - origin
    return begin, begin + float(stream.duration * stream.time_base)


def decode_audio(
    path: Path, stream: Any, packets: list[Any], span: Seconds, num_samples: int, check: Check, zero: float = 0.0
) -> tuple[Float[Tensor, " S"], list[float]]:
    """Return ``num_samples`` samples at 16 kHz mono, and the seconds of every gap that is filled with silence.

    A gap is a time for which the file has no packets, as of a muted microphone. What follows it is in time.

    Args:
        path: of the file, for messages.
        stream: the audio stream.
        packets: its packets, and one more that follows them.
        span: first and last second of the samples to return.
        num_samples: samples to return.
        check: raises if reading takes too long.
        zero: second of the first sample of the file.

    Raises:
        BadSample: the file ends before the samples do, or its time stamps contradict each other.
    """
    begin, end = span
    track = _Track(path, begin, end)
    for packet in [*packets, None]:
        check()
        for frame in stream.codec_context.decode(packet):
            track.append(frame, file_origin(stream.container))
        if track.is_complete:
            break
    samples, first, rate = track.join()
    # Resampling is done on the grid of the file, not of the clip. A resampler computes an output sample from a fixed
    # number of input samples (3 for 48 kHz). If it began at the first decoded sample, a clip would get other values
    # than the same span of a file that is decoded from its beginning, since seeking ends at arbitrary blocks. So input
    # samples are dropped up to the next multiple of that number, counted from the first sample of the file.
    offset = -round((first - zero) * rate) % (rate // math.gcd(rate, SAMPLE_RATE))
    audio = _resample(samples[offset:], rate)
    skip = round((begin - first - offset / rate) * SAMPLE_RATE)
    if skip < 0:
        track.add_gap(begin, first)
        audio = np.pad(audio, (min(-skip, num_samples), 0))
    else:
        audio = audio[skip:]
    num_missing = num_samples - len(audio)
    if num_missing > TOLERANCE * SAMPLE_RATE or not len(audio):
        seconds, promised = len(audio) / SAMPLE_RATE, num_samples / SAMPLE_RATE
        message = f"{seconds:.2f} s of audio where the header says {promised:.2f} s; the file is cut."
        raise BadSample("truncated" if len(audio) else "empty_audio", f"{path}: {message}")
    audio = np.nan_to_num(np.pad(audio, (0, max(0, num_missing)))[:num_samples])
    return torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32)), track.gaps


class _Track:
    """Joins decoded blocks to one mono signal at the rate of the first one, each at the time of its stamp.

    Args:
        path: of the file, for messages.
        begin: first second that is needed.
        end: last second that is needed.
    """

    def __init__(self, path: Path, begin: float, end: float) -> None:
        self.path, self.begin, self.end = path, begin, end
        self.gaps: list[float] = []
        self._pieces: list[np.ndarray[Any, Any]] = []
        self._first, self._rate, self._num_samples = begin, SAMPLE_RATE, 0
        self._form: tuple[str, str, int] | None = None
        self._mono: Any = None

    @property
    def position(self) -> float:
        """Second at which the signal ends."""
        return self._first + self._num_samples / self._rate

    @property
    def is_complete(self) -> bool:
        """The signal reaches the end, and a little further for the last samples of the resampler."""
        return self.position > self.end + TOLERANCE

    def append(self, frame: Any, origin: float) -> None:
        """Append a decoded block, behind silence if it is later than the end of the signal.

        Raises:
            BadSample: the block is earlier than the one before, behind a gap.
        """
        second = None if frame.time is None else frame.time - origin
        if self._mono is None:
            self._first, self._rate = self.begin if second is None else second, frame.sample_rate
        gap = 0.0 if second is None else second - self.position
        if gap < -TOLERANCE and self.gaps:
            raise BadSample(
                "corrupt", f"{self.path}: the audio's time stamps go back by {-gap:.2f} s at {second:.2f} s."
            )
        if gap > JITTER:
            silence = min(gap, max(0.0, self.end + TOLERANCE - self.position))
            self.add_gap(self.position, self.position + gap)
            self._add(np.zeros(round(silence * self._rate), np.float32))
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self._flush()
            self._form, self._mono = form, av.AudioResampler(format="fltp", layout="mono", rate=self._rate)
        for piece in self._mono.resample(frame):
            self._add(piece.to_ndarray()[0])

    def add_gap(self, start: float, end: float) -> None:
        """Count a gap, as far as it is needed."""
        seconds = min(end, self.end) - max(start, self.begin)
        if seconds > JITTER:
            self.gaps.append(seconds)

    def join(self) -> tuple[Float[np.ndarray, " S"], float, int]:
        """Return the signal, the second of its first sample, and its rate.

        Raises:
            BadSample: there is no block.
        """
        self._flush()
        if not self._pieces:
            raise BadSample("empty_audio", f"{self.path}: no audio can be decoded from {self.begin:.2f} s on.")
        return np.concatenate(self._pieces), self._first, self._rate

    def _flush(self) -> None:
        """Append what the converter still holds; the layout or the rate of a stream may change."""
        if self._mono is not None and not self._mono.is_passthrough:
            for piece in self._mono.resample(None):
                self._add(piece.to_ndarray()[0])

    def _add(self, samples: Float[np.ndarray, " S"]) -> None:
        self._pieces.append(samples)
        self._num_samples += len(samples)


def _resample(samples: Float[np.ndarray, " S"], rate: int) -> Float[np.ndarray, " R"]:
    """Return samples at 16 kHz."""
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])
