"""Questions with decoded media, and the answers of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from omnihuman.data.collate import Packable
from omnihuman.data.record import Record
from omnihuman.types import Sample

FusionWeights = Mapping[str, Mapping[str, float]]
"""Fusion -> stream -> weight."""


@dataclass(frozen=True)
class Answer:
    """The answer of a model.

    Attributes:
        text: of the answer.
        tokens: number of its tokens.
        weights: mean weight of each stream in the fusions that have weights.
        log_probs: of the options, if they were requested, rounded to four decimals.
        ids: its tokens, without the end-of-turn token.
        prompt_tokens: length of the prompt, media included.
        seconds: of generating the whole batch.
        finished: the answer ends with an end-of-turn token, not at ``max_new_tokens``.
    """

    text: str
    tokens: int
    weights: FusionWeights = field(default_factory=dict)
    log_probs: tuple[float, ...] = ()
    ids: tuple[int, ...] = ()
    prompt_tokens: int = 0
    seconds: float = 0.0
    finished: bool = True

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Prompt:
    """A question with decoded media.

    Attributes:
        record: of the question, without the slots that stay empty.
        sample: decoded media.
        counts: tokens of each slot.
        length: tokens of the whole prompt.
        notes: for the user: modalities that are missing or that the model does not read.
        packable: signals and ids.
    """

    record: Record
    sample: Sample
    counts: Mapping[str, int]
    length: int
    notes: tuple[str, ...]
    packable: Packable
