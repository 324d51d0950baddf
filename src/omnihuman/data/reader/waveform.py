"""Waveform: the audio of a clip."""

from typing import Any

from torch import Tensor

from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import BadSample, Record
from omnihuman.modality import SAMPLE_RATE


class WaveformReader(Reader):
    """Returns 16 kHz mono audio ``[S]``. The filler is ten seconds of silence."""

    decodes = ("waveform",)
    filler_amount = 10 * SAMPLE_RATE

    def is_available(self, record: Record, header: Header) -> bool:
        return header.has_audio

    def count(self, record: Record, header: Header) -> int:
        num_samples = header.num_samples(*record.audio_span)
        if not num_samples:
            cure = "correct start and end, or remove <audio> from the record."
            raise BadSample("empty_audio", f"{record.file} has no audio in the clip; {cure}")
        return num_samples

    def read(self, record: Record, clip: Clip) -> Tensor | None:
        return clip.waveform

    def cache_key(self, record: Record) -> dict[str, Any]:
        return {
            "file": record.audio_track or record.file,
            "audio_stream": record.audio_stream,
            "span": record.audio_span,
        }
