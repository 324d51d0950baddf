"""Waveform: the audio of a clip."""

from collections.abc import Callable
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
        return self.options.augment.count_samples(num_samples, record.id) if self.options.augment else num_samples

    def count_in_file(self, amount: int, record: Record, header: Header) -> int:
        if not amount:
            return 0
        return header.num_samples(*record.audio_span) or amount  # a filler has no file

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
