"""Names of single models of the hub, in every spelling -> those that our part of that kind loads."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omnihuman.convert.checkpoint import KeyReport, assign, first_match

BUFFER = "a buffer of older transformers, computed from the configuration"
HEAD = "the head is the embedding"


@dataclass(frozen=True, slots=True)
class Tower:
    """One kind of model.

    Attributes:
        renamed: pattern of an official key -> its name in the folder that the part loads; the first match counts.
        dropped: pattern of an official key that the part does not read -> why. It is asked first.
    """

    renamed: Mapping[str, str]
    dropped: Mapping[str, str]


_LLM = Tower({r"((?:model\.(?:embed_tokens|layers|norm)|lm_head)\..+)": r"\1"}, {"*rotary_emb.inv_freq": BUFFER})

TOWERS: dict[str, Tower] = {
    "siglip": Tower(
        {r"(?:vision_model\.)?((?:embeddings|encoder|post_layernorm)\..+)": r"\1"},
        {
            "text_model.*": "the text tower",
            "logit_*": "scale and bias of the contrastive loss",
            "*head.*": "features are patches, not the pooled picture",
            "*embeddings.position_ids": BUFFER,
        },
    ),
    "whisper": Tower(
        {r"(?:(?:model\.)?encoder\.)?((?:conv1|conv2|embed_positions|layers|layer_norm)\..+)": r"\1"},
        {
            "*decoder.*": "the decoder: a language model of ours answers in its place",
            "proj_out.*": "the head of the decoder",
            "projector.*": "part of a classification head",
            "classifier.*": "a classification head",
        },
    ),
    "bert": Tower(
        {
            # what TensorFlow called a norm's weight and bias, and the released file still does
            r"(?:bert\.)?((?:embeddings|encoder)\.(?:.+\.)?LayerNorm)\.gamma": r"\1.weight",
            r"(?:bert\.)?((?:embeddings|encoder)\.(?:.+\.)?LayerNorm)\.beta": r"\1.bias",
            r"(?:bert\.)?((?:embeddings|encoder)\..+)": r"\1",
        },
        {
            "*pooler.*": "the raw [CLS] state is read, not the pooler's output",
            "cls.*": "the heads of its pretraining",
            "*embeddings.position_ids": BUFFER,
        },
    ),
    "qwen2": _LLM,
    "mistral": _LLM,
}
"""Source -> its names."""


def report(keys: Iterable[str], source: str, tied: bool = False) -> KeyReport:
    """What becomes of every official key, in the names of transformers 4 and of 5, with heads or without.

    Args:
        keys: official ones.
        source: ``siglip``, ``whisper``, ``bert``, ``qwen2`` (Qwen2 and Qwen2.5) or ``mistral``.
        tied: whether the head of a language model is its embedding.

    Raises:
        ValueError: a key is unknown, or two keys are the same parameter.

    >>> report(["model.encoder.conv1.bias", "proj_out.weight"], "whisper").taken
    {'model.encoder.conv1.bias': 'conv1.bias'}
    """
    tower = TOWERS[source]
    dropped = {"lm_head.weight": HEAD} if tied else {}
    return assign(
        keys, lambda key: to_part(key, source), lambda key: first_match(key, {**dropped, **tower.dropped}), source
    )


def to_part(key: str, source: str) -> str | None:
    """The name of an official parameter in the folder that the part loads, ``None`` if it has none there."""
    found = ((re.fullmatch(pattern, key), name) for pattern, name in TOWERS[source].renamed.items())
    return next((match.expand(name) for match, name in found if match), None)
