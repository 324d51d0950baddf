"""The few containers that travel through the whole house, and the alphabet of their shapes.

B  batch (samples)                         D  width of a token
T  time: frames of a video, hops of sound  L  positions of a token sequence
N  tokens at one moment (patches, queries) V  vocabulary
C H W  channels and pixels                 M  mel bins
K  streams or classes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a position that is not supervised."""

SLOTS = {"video": -201, "audio": -202}
"""Places in the text that a stream can fill, with the id that holds it; a still is a video of one frame."""


class Template(NamedTuple):
    """What stands around the words when a language model is spoken to.

    Attributes:
        begin: before everything.
        system: around the system text.
        ask: before a question.
        answer: between a question and its answer.
        end: ends an answer, and is supervised with it.
        following: between an answer and the next question.
        marks: special tokens of the template.
        words: what the template says in plain words; neither these nor the marks may stand in a text.
    """

    begin: str
    system: str
    ask: str
    answer: str
    end: str
    following: str
    marks: tuple[str, ...]
    words: tuple[str, ...] = ()


TEMPLATES = {
    "chatml": Template(
        begin="",
        system="<|im_start|>system\n{}<|im_end|>\n",
        ask="<|im_start|>user\n",
        answer="<|im_end|>\n<|im_start|>assistant\n",
        end="<|im_end|>",
        following="\n",
        marks=("<|im_start|>", "<|im_end|>"),
    ),
    "mistral": Template(
        begin="<s>",
        system="{} ",
        ask="[INST] ",
        answer=" [/INST]",
        end="</s>",
        following="",
        marks=("<s>", "</s>"),
        words=("[INST]", "[/INST]"),
    ),
}
"""Qwen's ChatML and Mistral's instructions (VideoChat2-Mistral puts its system text before the first of these)."""


class Layout(NamedTuple):
    """How many tokens a stream has, known before any media is decoded.

    >>> Layout(moments=8, tokens=49, grid=(7, 7)).total
    392
    """

    moments: int
    tokens: int
    grid: tuple[int, int] | None = None
    levels: tuple[Layout, ...] = ()

    @property
    def total(self) -> int:
        """All tokens of the stream."""
        return self.moments * self.tokens


class Width(int):
    """Width of a stream's tokens, with those of its levels where it has any.

    >>> Width(256, (128, 512)) + 0, Width(256, (128, 512)).levels
    (256, (128, 512))
    """

    levels: tuple[int, ...]

    def __new__(cls, width: int, levels: tuple[int, ...] = ()) -> Width:
        made = super().__new__(cls, width)
        made.levels = levels
        return made


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded sample, before any transform.

    Attributes:
        frames: pictures, ``None`` where the sample has none.
        faces: of every frame the crop ``[3 h w]`` of its face, ``None`` where it shows none.
        waveform: 16 kHz mono sound in [-1, 1], ``None`` where the sample has none.
        messages: the conversation, (role, text) with role ``user`` or ``assistant``; slots as ``<video>``, ``<audio>``.
        meta: whatever the record says besides.
    """

    frames: UInt8[Tensor, "T 3 H W"] | None
    faces: tuple[UInt8[Tensor, "3 _ _"] | None, ...]
    waveform: Float[Tensor, " S"] | None
    messages: tuple[tuple[str, str], ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def instruction(self) -> str:
        """The words of the first user turn, without the slots; or what ``meta`` says that they are."""
        if isinstance(said := self.meta.get("instruction"), str):
            return said
        text = next(text for role, text in self.messages if role == "user")
        for tag in ("<video>", "<image>", "<audio>"):
            text = text.replace(tag, "")
        return text.strip()


@dataclass(frozen=True, slots=True)
class Signal:
    """What an encoder reads: one modality of a batch, padded in time.

    Attributes:
        values: frames ``[B T C H W]`` uint8, mel hops ``[B T M]`` or token ids ``[B T]``; time is the second axis.
        mask: ``True`` where the moment is real. A sample without this modality has none.
        has_gaps: some sample lacks this modality at moments that were planned for it, as a frame without a face does.
    """

    values: Tensor
    mask: Bool[Tensor, "B T"]
    has_gaps: bool = False


@dataclass(frozen=True, slots=True)
class Features:
    """What an encoder, a projector and a fusion hand on.

    Attributes:
        tokens: one vector per token.
        mask: ``True`` where a token is real, ``False`` where it is padding.
        grid: rows and columns of the N tokens of a moment, if they lie on a grid.
        levels: the same signal at other depths, shallow to deep, if the encoder offers them.
    """

    tokens: Float[Tensor, "B T N D"]
    mask: Bool[Tensor, "B T N"]
    grid: tuple[int, int] | None = None
    levels: tuple[Features, ...] = ()

    @classmethod
    def of(
        cls, tokens: Float[Tensor, "B T N D"], mask: Bool[Tensor, "B T"], grid: tuple[int, int] | None = None
    ) -> Features:
        """Features whose padding is in time only."""
        return cls(tokens, mask.unsqueeze(-1).expand(tokens.shape[:3]), grid)

    def flat(self) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Tokens in reading order: time first, then the grid.

        >>> features = Features.of(torch.zeros(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))
        >>> [x.shape for x in features.flat()]
        [torch.Size([2, 12, 8]), torch.Size([2, 12])]
        """
        return rearrange(self.tokens, "B T N D -> B (T N) D"), rearrange(self.mask, "B T N -> B (T N)")


Streams = dict[str, Features]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as one packed row of text with their signals.

    Attributes:
        signals: by encoder name; row b belongs to sample b of the packed row.
        features: by encoder name, what a frozen encoder has made of some samples before; it reads the signals of the
            others, if there are any.
        input_ids: all samples one after the other; a slot is a run of its id from ``SLOTS``, one per token.
        labels: the id to be predicted AT this position (not shifted), ``IGNORE_INDEX`` where unsupervised.
        position_ids: start again at 0 with every sample.
        bounds: where each sample starts, and the end: S + 1 numbers (S >= 1 is the number of samples).
        step_targets: supervised tokens of the whole optimizer step, over all ranks and micro-batches.
        has_gaps: of the features, as a signal's.
        meta: one entry per sample; ``skipped`` lists what was planned for this batch and could not be used.
    """

    signals: Mapping[str, Signal]
    input_ids: Int[Tensor, "1 L"]
    labels: Int[Tensor, "1 L"]
    position_ids: Int[Tensor, "1 L"]
    bounds: Int[Tensor, " S1"]
    step_targets: int
    meta: tuple[Mapping[str, Any], ...] = ()
    skipped: tuple[Mapping[str, Any], ...] = ()
    features: Mapping[str, Features] = field(default_factory=dict)
    has_gaps: bool = False

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """The batch with every tensor moved as by ``Tensor.to``."""
        return _map(self, lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return _map(self, Tensor.pin_memory)


@dataclass(frozen=True, slots=True)
class Output:
    """What the model says about a batch.

    Attributes:
        loss: cross-entropy summed over the supervised tokens of the batch.
        targets: number of supervised tokens.
        streams: the streams that filled the slots, by slot.
    """

    loss: Float[Tensor, ""]
    targets: int
    streams: Mapping[str, Features] = field(default_factory=dict)


def _map(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    """A copy of the batch with ``move`` applied to each of its tensors."""
    changes: dict[str, Any] = {
        field.name: move(value) for field in fields(batch) if isinstance(value := getattr(batch, field.name), Tensor)
    }
    signals = {
        name: replace(signal, values=move(signal.values), mask=move(signal.mask))
        for name, signal in batch.signals.items()
    }
    features = {name: _map_features(each, move) for name, each in batch.features.items()}
    return replace(batch, signals=signals, features=features, **changes)


def _map_features(features: Features, move: Callable[[Tensor], Tensor]) -> Features:
    levels = tuple(_map_features(level, move) for level in features.levels)
    return replace(features, tokens=move(features.tokens), mask=move(features.mask), levels=levels)
