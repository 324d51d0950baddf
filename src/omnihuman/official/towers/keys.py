"""Key maps of single models of the hub: every spelling of a key -> the name that our part of that kind loads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omnihuman.official.keys import KeyReport, build_report, expand_match, find_reason

BUFFER = "a buffer of older transformers, computed from the configuration"
TIED_HEAD = "the head is the embedding"


@dataclass(frozen=True, slots=True)
class KeyMap:
    """The key map of one kind of model.

    Attributes:
        names: pattern of an official key -> its name in the folder that the part loads; the first match counts.
        dropped: pattern of an official key that the part does not read -> why. It is checked before ``names``.
    """

    names: Mapping[str, str]
    dropped: Mapping[str, str]


_LLM = KeyMap({r"((?:model\.(?:embed_tokens|layers|norm)|lm_head)\..+)": r"\1"}, {"*rotary_emb.inv_freq": BUFFER})

KEY_MAPS: dict[str, KeyMap] = {
    "siglip": KeyMap(
        {r"(?:vision_model\.)?((?:embeddings|encoder|post_layernorm)\..+)": r"\1"},
        {
            "text_model.*": "the text tower",
            "logit_*": "scale and bias of the contrastive loss",
            "*head.*": "features are patches, not the pooled image",
            "*embeddings.position_ids": BUFFER,
        },
    ),
    "whisper": KeyMap(
        {r"(?:(?:model\.)?encoder\.)?((?:conv1|conv2|embed_positions|layers|layer_norm)\..+)": r"\1"},
        {
            "*decoder.*": "the decoder: our language model generates the text",
            "proj_out.*": "the head of the decoder",
            "projector.*": "part of a classification head",
            "classifier.*": "a classification head",
        },
    ),
    "bert": KeyMap(
        {
            # The released file keeps TensorFlow's names of a norm's weight and bias.
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
"""Source -> its key map."""


def report_keys(keys: Iterable[str], source: str, is_tied: bool = False) -> KeyReport:
    """Map every official key, in the names of transformers 4 and of 5, with heads or without.

    Args:
        keys: official keys.
        source: ``siglip``, ``whisper``, ``bert``, ``qwen2`` (Qwen2 and Qwen2.5) or ``mistral``.
        is_tied: the head of a language model is its embedding.

    Raises:
        ValueError: a key is unknown, or two keys are the same parameter.

    >>> report_keys(["model.encoder.conv1.bias", "proj_out.weight"], "whisper").names
    {'model.encoder.conv1.bias': 'conv1.bias'}
    """
    reasons = dict(KEY_MAPS[source].dropped)
    if is_tied:
        reasons["lm_head.weight"] = TIED_HEAD
    return build_report(keys, lambda key: map_key(key, source), lambda key: find_reason(key, reasons), source)


def map_key(key: str, source: str) -> str | None:
    """Return the name of an official parameter in the folder that the part loads, ``None`` if it has none."""
    return expand_match(key, KEY_MAPS[source].names)
