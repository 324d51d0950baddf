"""Names of LLaVA-OneVision's parameters, in either layout -> our names."""

import re
from collections.abc import Iterable

from omnihuman.official.keys import KeyReport, build_report, find_reason, replace_prefix
from omnihuman.official.towers.keys import TIED_HEAD

SPELLINGS: dict[str, str] = {
    r"(model\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?": "vision.",
    r"model\.mm_projector\.(?=[02]\.)": "projector.",
    r"(model\.)?multi_modal_projector\.linear_1\.": "projector.0.",
    r"(model\.)?multi_modal_projector\.linear_2\.": "projector.2.",
    r"(model\.)?image_newline": "newline",
    r"(language_model\.)?lm_head\.": "llm.lm_head.",
    r"(model\.language_model|language_model\.model|model)\.(?=embed_tokens\.|layers\.|norm\.)": "llm.model.",
}
"""Pattern of a prefix in the original layout or that of transformers 4 and 5 -> one common spelling."""

PREFIXES: dict[str, str] = {
    "vision.embeddings.": "encoders.video.embeddings.",
    "vision.encoder.layers.": "encoders.video.layers.",
    "projector.": "projectors.video.layers.",
    "newline": "fusions.newline.newline",
    "llm.": "llm.model.",
}
"""Prefix in the common spelling -> ours; the rest of a key is the same on both sides."""

DROPPED: dict[str, str] = {
    "vision.embeddings.position_ids": "a buffer of older transformers that counts 0, 1, 2",
    "vision.post_layernorm.*": "features are read before the final norm",
    "vision.head.*": "features are patches, not the pooled image",
    "llm.*rotary_emb.inv_freq": "a buffer of older transformers, computed from the configuration",
}
"""Pattern of a key in the common spelling that nothing reads -> why."""

ABOVE_FEATURES = "features are read below this block"


def report_keys(keys: Iterable[str], num_blocks: int | None = None, is_tied: bool = False) -> KeyReport:
    """Map every key of a LLaVA-OneVision to the names of Omni-Emotion's video path.

    Accepts the original layout and that of transformers, with the names of transformers 4 and of 5.

    Reference: LLaVA-NeXT ``llava_arch.py``, transformers ``modeling_llava_onevision.py``.

    Args:
        keys: official keys.
        num_blocks: blocks of the vision tower that are read; those above are dropped. ``None`` reads all.
        is_tied: the head of the language model is its embedding.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``, or two keys are the same parameter.

    >>> report_keys(["model.image_newline", "model.mm_projector.2.bias"]).names["model.mm_projector.2.bias"]
    'projectors.video.layers.2.bias'
    """

    def drop_reason(key: str) -> str | None:
        name = _unify(key)
        block = _block_index(name)
        if num_blocks is not None and block is not None and block >= num_blocks:
            return ABOVE_FEATURES
        if is_tied and name == "llm.lm_head.weight":
            return TIED_HEAD
        return find_reason(name, DROPPED)

    return build_report(keys, lambda key: replace_prefix(_unify(key), PREFIXES), drop_reason, "LLaVA-OneVision")


def count_blocks(keys: Iterable[str]) -> int:
    """Return the number of blocks of the vision tower in a checkpoint."""
    count = 0
    for key in keys:
        block = _block_index(_unify(key))
        if block is not None:
            count = max(count, block + 1)
    return count


def _unify(key: str) -> str:
    """Return the key in the common spelling."""
    for pattern, prefix in SPELLINGS.items():
        match = re.match(pattern, key)
        if match:
            return prefix + key[match.end() :]
    return key


def _block_index(name: str) -> int | None:
    match = re.match(r"vision\.encoder\.layers\.(\d+)\.", name)
    return int(match[1]) if match else None
