"""Waveform: the audio of a clip."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import BadSample, Record
from omnihuman.modality import SAMPLE_RATE

FIRST_WINDOW = 30 * SAMPLE_RATE
"""Samples that ``long_audio=first`` reads: Whisper's window, and that of HumanOmni's released inference."""


class WaveformReader(Reader):
    """Returns 16 kHz mono audio ``[S]``. The filler is ten seconds of silence.

    With ``long_audio=first``, a question is about the first 30 s. A training sample with more audio is bad, since its
    answer may be about the rest.
    """

    decodes = ("waveform",)
    filler_amount = 10 * SAMPLE_RATE

    def is_available(self, record: Record, header: Header) -> bool:
        return header.has_audio

    def count(self, record: Record, header: Header) -> int:
        num_samples = header.num_samples(*record.audio_span)
        if not num_samples:
            cure = "correct start and end, or remove <audio> from the record."
            raise BadSample("empty_audio", f"{record.file} has no audio in the clip; {cure}")
        if self._is_cut(num_samples) and not self.options.prompts:
            seconds = num_samples / SAMPLE_RATE
            message = f"{record.file} has {seconds:.1f} s of audio in the clip, and data.long_audio=first reads 30 s"
            raise BadSample("audio_too_long", f"{message}; choose data.long_audio=windows, or set start and end.")
        num_samples = self._limit(num_samples)
        return self.options.augment.count_samples(num_samples, record.id) if self.options.augment else num_samples

    def count_in_file(self, amount: int, record: Record, header: Header) -> int:
        if not amount:
            return 0
        return self._limit(header.num_samples(*record.audio_span)) or amount  # a filler has no file

    def _is_cut(self, num_samples: int) -> bool:
        return self.options.long_audio == "first" and num_samples > FIRST_WINDOW

    def _limit(self, num_samples: int) -> int:
        return FIRST_WINDOW if self._is_cut(num_samples) else num_samples

    def read(self, record: Record, clip: Clip) -> Tensor | None:
        if self.options.augment is None or clip.waveform is None:
            return clip.waveform
        return self.options.augment.change_waveform(clip.waveform, record.id)

    def to_signal(self, value: Any, transform: Callable[[Any], Tensor], blank: Tensor) -> tuple[Tensor, Tensor | None]:
        values, mask = super().to_signal(value, transform, blank)
        return values if self.options.augment is None else self.options.augment.mask_spectrogram(values), mask

    def cache_key(self, record: Record) -> dict[str, Any]:
        return {
            "file": record.audio_track or record.file,
            "audio_stream": record.audio_stream,
            "span": record.audio_span,
        }
