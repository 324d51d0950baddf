"""The containers that data and model share, and the alphabet of their shapes.

B  batch (samples)                           D  width of a token
T  time: frames of a video, hops of audio    L  positions of a token sequence
N  tokens of a time step (patches, queries)  V  vocabulary
C H W  channels and pixels                   M  mel bins
K  streams or classes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, NamedTuple

from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from omnihuman.mirror import Mirror
from omnihuman.modality import TAGS

IGNORE_INDEX = -100
"""Label of a position that is not supervised."""


class Tiling(NamedTuple):
    """An image whose time steps are the whole image, the base, and its tiles, row by row.

    Attributes:
        rows: of tiles; 0 for the base alone.
        columns: of tiles.
        height: of the image in pixels, which has the middle of the tiles; the rest is black. 0 for frames of a video.
        width: of the image.
    """

    rows: int
    columns: int
    height: int
    width: int


class FrameCount(int):
    """Number of frames, with the tiling of an image that is cut into tiles.

    >>> FrameCount(7, Tiling(2, 3, 500, 700)) + 0
    7
    """

    tiling: Tiling | None

    def __new__(cls, count: int, tiling: Tiling | None = None) -> FrameCount:
        instance = super().__new__(cls, count)
        instance.tiling = tiling
        return instance


class Layout(NamedTuple):
    """The number of tokens of a stream, known before any media is decoded.

    Attributes:
        time_steps: T, such as the frames of a video.
        tokens_per_step: N.
        grid: rows and columns of the N tokens, if they lie on a grid.
        levels: layouts of the levels, shallow to deep.
        tiling: of an image whose tiles the time steps are.

    >>> Layout(time_steps=8, tokens_per_step=49, grid=(7, 7)).num_tokens
    392
    """

    time_steps: int
    tokens_per_step: int
    grid: tuple[int, int] | None = None
    levels: tuple[Layout, ...] = ()
    tiling: Tiling | None = None

    @property
    def num_tokens(self) -> int:
        """All tokens of the stream."""
        return self.time_steps * self.tokens_per_step


class Width(int):
    """Width of a stream's tokens, with the widths of its levels.

    >>> Width(256, (128, 512)) + 0, Width(256, (128, 512)).levels
    (256, (128, 512))
    """

    levels: tuple[int, ...]

    def __new__(cls, width: int, levels: tuple[int, ...] = ()) -> Width:
        instance = super().__new__(cls, width)
        instance.levels = levels
        return instance


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded sample, before any transform.

    Attributes:
        media: value of each modality by its field; a modality that the sample lacks is absent.
        messages: (role, text) with role ``user`` or ``assistant``; the text holds tags: ``<video>``, ``<audio>``.
        meta: id, task, answer, seconds of the frames (``times``), and further keys of the record.
        more: samples of the images after the first one.
    """

    media: Mapping[str, Any]
    messages: tuple[tuple[str, str], ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[Sample, ...] = ()

    @property
    def frames(self) -> UInt8[Tensor, "T 3 H W"] | None:
        """Frames of the video, or the image as one frame."""
        return self.media.get("frames")

    @property
    def faces(self) -> tuple[UInt8[Tensor, "3 _ _"] | None, ...]:
        """The face crop of each frame, ``None`` for a frame without a face."""
        return self.media.get("faces") or ()

    @property
    def waveform(self) -> Float[Tensor, " S"] | None:
        """16 kHz mono audio in [-1, 1]."""
        return self.media.get("waveform")

    @property
    def instruction(self) -> str:
        """The question of the last answer, without tags, unless ``meta`` holds an ``instruction``."""
        text = self.meta.get("instruction")
        if isinstance(text, str):
            return text
        _, text = next(message for message in reversed(self.messages) if message[0] == "user")
        for tag in TAGS:
            text = text.replace(tag, "")
        return text.strip()


@dataclass(frozen=True, slots=True)
class Signal:
    """Input of an encoder: one field of every sample of a batch, padded in time.

    Attributes:
        values: frames ``[B T C H W]`` uint8, mel hops ``[B T M]`` or token ids ``[B T]``; time is the second axis.
        mask: ``True`` where the time step is valid. A sample without this modality has no valid time step.
        has_gaps: a sample has no value at a time step that was planned for one, such as a frame without a face.
    """

    values: Tensor
    mask: Bool[Tensor, "B T"]
    has_gaps: bool = False


@dataclass(frozen=True, slots=True)
class Features:
    """Output of an encoder, a projector and a fusion.

    Attributes:
        tokens: one vector per token.
        mask: ``True`` where a token is valid, ``False`` where it is padding.
        grid: rows and columns of the N tokens of a time step, if they lie on a grid.
        levels: features of the same signal at other depths, shallow to deep, if the encoder offers them.
        tilings: of images that are cut into tiles, one ``Tiling`` for each row, zeros for a video.
    """

    tokens: Float[Tensor, "B T N D"]
    mask: Bool[Tensor, "B T N"]
    grid: tuple[int, int] | None = None
    levels: tuple[Features, ...] = ()
    tilings: Int[Tensor, "B 4"] | None = None

    @classmethod
    def of(
        cls, tokens: Float[Tensor, "B T N D"], mask: Bool[Tensor, "B T"], grid: tuple[int, int] | None = None
    ) -> Features:
        """Return features whose padding is in time only."""
        return cls(tokens, mask.unsqueeze(-1).expand(tokens.shape[:3]), grid)

    def flat(self) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Return tokens and mask in reading order: time first, then the grid.

        >>> features = Features.of(torch.zeros(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))
        >>> [x.shape for x in features.flat()]
        [torch.Size([2, 12, 8]), torch.Size([2, 12])]
        """
        return rearrange(self.tokens, "B T N D -> B (T N) D"), rearrange(self.mask, "B T N -> B (T N)")


Streams = dict[str, Features]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as one packed sequence of token ids, with their signals.

    Attributes:
        signals: by encoder name; index b of a signal is sample b of the packed sequence (see ``rows``).
        features: by encoder name, cached features of a frozen encoder for some samples; the encoder runs on the signals
            of the others.
        input_ids: all samples one after the other; a placeholder is a run of its slot's id in ``SLOTS``, one per token.
        labels: the id to be predicted AT this position (not shifted), ``IGNORE_INDEX`` where unsupervised.
        position_ids: start again at 0 with every sample.
        bounds: start of every sample, and the end: S + 1 numbers for S >= 1 samples, on the host.
        step_targets: supervised tokens of the whole optimizer step, over all ranks and micro-batches.
        has_gaps: the same of the cached features as ``Signal.has_gaps``.
        meta: one entry per sample.
        skipped: one entry per sample that was planned for this batch and is bad.
        rows: numbers of rows that each sample has in the signals, one for each of its images; empty: one each.
        step_samples: samples of the whole optimizer step, over all ranks and micro-batches, skipped ones included.
        tilings: one ``Tiling`` for each row of the signals, zeros for a video; ``None`` without an image in tiles.
    """

    signals: Mapping[str, Signal]
    input_ids: Int[Tensor, "1 L"]
    labels: Int[Tensor, "1 L"]
    position_ids: Int[Tensor, "1 L"]
    bounds: Sequence[int]
    step_targets: int
    meta: tuple[Mapping[str, Any], ...] = ()
    skipped: tuple[Mapping[str, Any], ...] = ()
    features: Mapping[str, Features] = field(default_factory=dict)
    has_gaps: bool = False
    rows: tuple[int, ...] = ()
    step_samples: int = 0
    tilings: Int[Tensor, "R 4"] | None = None

    @property
    def lengths(self) -> list[int]:
        """Positions of every sample."""
        return [end - start for start, end in pairwise(self.bounds)]

    @property
    def may_drop(self) -> bool:
        """True if a placeholder may have no token; known without a look at the device."""
        return self.has_gaps or any(signal.has_gaps for signal in self.signals.values())

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Return the batch with every tensor moved by ``Tensor.to``; from page-locked memory without waiting.

        On another device its masks and ids are mirrors, whose values the host reads from this batch.
        """
        moved = _map(self, lambda tensor: tensor.to(*args, **{"non_blocking": tensor.is_pinned(), **kwargs}))
        return moved if moved.input_ids.device == self.input_ids.device else moved.mirror(self)

    def mirror(self, host: Batch) -> Batch:
        """Return the batch with the masks and ids of another one on the host, which has the same values."""
        signals, features = {}, {}
        for name, signal in self.signals.items():
            signals[name] = replace(signal, mask=Mirror.of(signal.mask, host.signals[name].mask.clone()))
        for name, stream in self.features.items():
            features[name] = _mirror_features(stream, host.features[name])
        ids: dict[str, Any] = {}
        for key in ("input_ids", "labels", "position_ids", "tilings"):
            if getattr(host, key) is not None:
                ids[key] = Mirror.of(getattr(self, key), getattr(host, key).clone())
        return replace(self, signals=signals, features=features, **ids)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory."""
        return _map(self, Tensor.pin_memory)


Batches = tuple[Batch, ...]
"""The micro-batches of an optimizer step on one rank."""


@dataclass(frozen=True, slots=True)
class Output:
    """Output of the model for a batch.

    Attributes:
        log_probs: natural log-probability of each of the S supervised tokens, after everything that precedes it.
        positions: of the supervised tokens in the packed sequence.
        bounds: where each sample begins in that sequence, and the end of the last one.
        streams: the streams in the slots, by slot.
    """

    log_probs: Float[Tensor, S]
    positions: Int[Tensor, S]
    bounds: Sequence[int]
    streams: Mapping[str, Features] = field(default_factory=dict)

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Cross-entropy summed over the supervised tokens."""
        return -self.log_probs.sum()

    @property
    def targets(self) -> int:
        """Number of supervised tokens."""
        return len(self.log_probs)


def _map(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    """Return a copy of the batch with ``move`` applied to each of its tensors."""
    tensors: dict[str, Any] = {}
    for attribute in fields(batch):
        value = getattr(batch, attribute.name)
        if isinstance(value, Tensor):
            tensors[attribute.name] = move(value)
    signals = {}
    for name, signal in batch.signals.items():
        signals[name] = replace(signal, values=move(signal.values), mask=move(signal.mask))
    features = {name: _map_features(stream, move) for name, stream in batch.features.items()}
    return replace(batch, signals=signals, features=features, **tensors)


def _mirror_features(features: Features, host: Features) -> Features:
    levels = tuple(map(_mirror_features, features.levels, host.levels))
    return replace(features, mask=Mirror.of(features.mask, host.mask.clone()), levels=levels)


def _map_features(features: Features, move: Callable[[Tensor], Tensor]) -> Features:
    levels = tuple(_map_features(level, move) for level in features.levels)
    return replace(features, tokens=move(features.tokens), mask=move(features.mask), levels=levels)
