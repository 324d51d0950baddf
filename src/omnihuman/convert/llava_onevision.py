"""Names of LLaVA-OneVision's parameters, in either layout -> ours."""

import re
from collections.abc import Iterable

from omnihuman.convert.checkpoint import KeyReport, assign, first_match, replace_prefix
from omnihuman.convert.towers import HEAD

SPELLINGS: dict[str, str] = {
    r"(model\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?": "vision.",
    r"model\.mm_projector\.(?=[02]\.)": "projector.",
    r"(model\.)?multi_modal_projector\.linear_1\.": "projector.0.",
    r"(model\.)?multi_modal_projector\.linear_2\.": "projector.2.",
    r"(model\.)?image_newline": "newline",
    r"(language_model\.)?lm_head\.": "llm.lm_head.",
    r"(model\.language_model|language_model\.model|model)\.(?=embed_tokens\.|layers\.|norm\.)": "llm.model.",
}
"""How a prefix is spelt in the original layout and in that of transformers 4 and 5 -> one spelling for all."""

PREFIXES: dict[str, str] = {
    "vision.embeddings.": "encoders.video.embeddings.",
    "vision.encoder.layers.": "encoders.video.layers.",
    "projector.": "projectors.video.layers.",
    "newline": "fusions.newline.newline",
    "llm.": "llm.model.",
}
"""That spelling -> ours; what follows a prefix is the same on both sides."""

DROPPED: dict[str, str] = {
    "vision.embeddings.position_ids": "a buffer of older transformers that counts 0, 1, 2",
    "vision.post_layernorm.*": "features are read before the final norm",
    "vision.head.*": "features are patches, not the pooled picture",
    "llm.*rotary_emb.inv_freq": "a buffer of older transformers, computed from the configuration",
}
"""Pattern of a key in that spelling which nothing here reads -> why."""

LAST = "features are read below this block"


def report(keys: Iterable[str], blocks: int | None = None, tied: bool = False) -> KeyReport:
    """What becomes of every key of a LLaVA-OneVision; our names are those of Omni-Emotion's video path.

    Takes the original layout and that of transformers, with the names of transformers 4 and of 5.

    Reference: LLaVA-NeXT ``llava_arch.py``, transformers ``modeling_llava_onevision.py``.

    Args:
        keys: official ones.
        blocks: how many blocks of the vision tower are read; those above are dropped. ``None`` reads all there are.
        tied: whether the head of the language model is its embedding.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``, or two keys are the same parameter.

    >>> report(["model.image_newline", "model.mm_projector.2.bias"]).taken["model.mm_projector.2.bias"]
    'projectors.video.layers.2.bias'
    """
    return assign(
        keys,
        lambda key: replace_prefix(_plain(key), PREFIXES),
        lambda key: _dropped(_plain(key), blocks, tied),
        "LLaVA-OneVision",
    )


def blocks_of(keys: Iterable[str]) -> int:
    """How many blocks of the vision tower a checkpoint holds."""
    return max((block + 1 for key in keys if (block := _block(_plain(key))) is not None), default=0)


def _plain(key: str) -> str:
    """The key in the one spelling."""
    for pattern, one in SPELLINGS.items():
        if match := re.match(pattern, key):
            return one + key[match.end() :]
    return key


def _dropped(plain: str, blocks: int | None, tied: bool) -> str | None:
    block = _block(plain)
    if blocks is not None and block is not None and block >= blocks:
        return LAST
    return HEAD if tied and plain == "llm.lm_head.weight" else first_match(plain, DROPPED)


def _block(plain: str) -> int | None:
    match = re.match(r"vision\.encoder\.layers\.(\d+)\.", plain)
    return int(match[1]) if match else None
