"""Reader: the value of one modality of a record, and its size before anything is decoded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from omnihuman.data.augment import AudioAugment
from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.face import FaceInput
from omnihuman.data.media import Clip, Header
from omnihuman.data.record import Record
from omnihuman.modality import MODALITIES
from omnihuman.nn.tiles import Tiles

LongAudio = Literal["windows", "first"]
"""Audio of more than 30 s: all of it, in windows of 30 s, or the first window."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of the readers.

    Attributes:
        num_frames: frames of a video.
        face: crops faces out of frames.
        augment: changes audio; ``None`` where samples are read as they are.
        long_audio: the part of long audio that is read.
        prompts: samples are questions, without an answer that could be about a part that is not read.
        sampling: of the frames of a video.
        time_instruction: the text after a video, ``None`` for none.
        tiles: of images, ``None`` for images that are one frame.
        exact: frames of videos are resized as the official code does; false: by swscale, while it converts colors.
    """

    num_frames: int
    face: FaceInput
    augment: AudioAugment | None = None
    long_audio: LongAudio = "windows"
    prompts: bool = False
    sampling: Sampling = "midpoints"
    time_instruction: str | None = None
    tiles: Tiles | None = None
    exact: bool = True


class Reader(ABC):
    """Reads one modality. The reader of a field ``x`` is the class ``XReader`` of the module ``x``.

    Args:
        options: of all readers.

    Attributes:
        decodes: fields of the decoded clip that ``read`` takes: ``frames``, ``waveform``.
        filler_amount: amount of the filler for a file that lacks the modality (``missing=fill``); 0 for no filler.
    """

    decodes: ClassVar[tuple[str, ...]] = ()
    filler_amount: ClassVar[int] = 0

    def __init__(self, options: ReadOptions) -> None:
        self.options = options

    @property
    def is_enabled(self) -> bool:
        """The options allow the modality."""
        return True

    @abstractmethod
    def is_available(self, record: Record, header: Header) -> bool:
        """Return whether the files of a record hold the modality."""

    def count(self, record: Record, header: Header) -> int:
        """Return the amount from which tokens are planned, such as frames or audio samples.

        It is called only for a field that a row of ``omnihuman.modality`` names as ``planned_from``; other readers do
        not override it.

        Raises:
            BadSample: the clip holds nothing of the modality.
        """
        raise NotImplementedError(f"{type(self).__name__} has no amount, but a modality is planned from its field.")

    def count_in_file(self, amount: int, record: Record, header: Header) -> int:
        """Return what has to be decoded for an amount."""
        return amount

    def prepare(self, record: Record, header: Header) -> Record:
        """Return the record with what reading needs, checked against the header.

        Raises:
            BadSample: record and file do not fit together.
        """
        return record

    @abstractmethod
    def read(self, record: Record, clip: Clip) -> Any:
        """Return the value for the field of a sample; ``None`` if the sample lacks it."""

    def take(self, record: Record) -> Callable[[DecodedFrame], Tensor | None]:
        """Return what reads the value of one decoded frame, ``[K 3 H W]``; ``None`` for one without a value.

        It is called only for a field with images.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no frame, but its modality has images.")

    def to_signal(self, value: Any, transform: Callable[[Any], Tensor], blank: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the time steps ``[T ...]`` of a signal, and the mask ``[T]`` where some of them can be missing.

        Args:
            value: of the field; of a field with images also ``data.steps.Steps``.
            transform: of the encoder.
            blank: one time step ``[1 ...]`` of zeros.
        """
        return transform(value), None

    def files(self, record: Record) -> tuple[Path, ...]:
        """Return the files whose content decides the value."""
        return record.files

    @abstractmethod
    def cache_key(self, record: Record) -> dict[str, Any]:
        """Return what decides the value: options and keys of the record, with paths for contents of files."""


def load_readers(options: ReadOptions) -> Mapping[str, Reader]:
    """Return the reader of every modality by field."""
    readers: dict[str, Reader] = {}
    for modality in MODALITIES:
        module = import_module(f"{__package__}.{modality.field}")
        reader_class = getattr(module, f"{modality.field.capitalize()}Reader")
        readers[modality.field] = reader_class(options)
    return readers
