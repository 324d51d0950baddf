"""The sound of a clip, decoded as the training decodes it."""

from jaxtyping import Float
from torch import Tensor

from omnihuman.data.media import probe, read
from omnihuman.operator.base import Row
from omnihuman.operator.truth import find_limits


def read_sound(
    row: Row, timeout: float, span: tuple[float, float] | None = None
) -> tuple[Float[Tensor, " S"] | None, float]:
    """Return the 16 kHz mono waveform of a row, ``None`` without sound, and the second of the file at which it begins.

    Args:
        row: with ``seconds`` of ``probe``.
        timeout: seconds for the file.
        span: first and last second to read, within that of the row; ``None``: all of it.

    Raises:
        BadSample: the file cannot be read, or is damaged.
    """
    begin, end = span or find_limits(row)
    header = probe(row["file"], timeout)
    first = header.audio_within(begin, end)[0]
    num_samples = header.num_samples(begin, end)
    if not num_samples:
        return None, first
    _, _, waveform = read(row["file"], num_samples=num_samples, start=begin, end=end, header=header, timeout=timeout)
    return waveform, first
