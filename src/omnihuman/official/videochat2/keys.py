"""Names of VideoChat2's and UMT's official parameters -> our names."""

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from omnihuman.official.keys import (
    KeyReport,
    build_report,
    find_reason,
    rename_state,
    replace_prefix,
)

_TOWER = "vision_encoder.encoder."

PREFIXES: dict[str, str] = {
    f"{_TOWER}patch_embed.proj.": "encoders.video.patch_embed.",
    f"{_TOWER}blocks.": "encoders.video.blocks.",
    "vision_layernorm.": "encoders.video.vision_layernorm.",
    "query_tokens": "projectors.general.queries",
    "extra_query_tokens": "projectors.general.extra_queries",
    "qformer.bert.": "projectors.general.model.",
    "mistral_proj.": "projectors.general.linears.0.",
    "mistral_model.base_model.model.": "llm.model.",
    "mistral_model.": "llm.model.",
}
"""Official prefix -> ours; the rest of a key is the same on both sides, except in the Q-Former: ``_map_qformer``."""

DROPPED: dict[str, str] = {
    f"{_TOWER}norm.*": "features are read before the final norm",
    "*clip_decoder.*": "the head that UMT's pretraining matches to CLIP",
    "*pool_norm.*": "the norm of UMT's pooled video, features are patches",
    "text_encoder.*": "UMT's own text tower",
    "vision_temp_embed": "stage 1 adds it to the output of the vision encoder, later stages do not",
    "vision_proj.*": "a head of stage 1's contrastive loss",
    "text_proj.*": "a head of stage 1's contrastive loss",
    "itm_head.*": "a head of stage 1's matching loss",
    "temp": "the temperature of stage 1's contrastive loss",
    "qformer.cls.*": "the head of stage 1's caption loss",
    "qformer.bert.embeddings.position_ids": "a buffer of older transformers that counts 0, 1, 2",
    "mistral_model.*rotary_emb.inv_freq": "a buffer of older transformers, computed from the configuration",
}
"""Pattern of an official key that nothing reads -> why."""

ABOVE_FEATURES = "features are read below the last block (return_index -2)"


def convert_state(state: Mapping[str, Tensor], num_blocks: int = 23) -> tuple[dict[str, Tensor], KeyReport]:
    """Return an official state dict under our names, and the report on its keys; see ``report_keys``."""
    report = report_keys(state, num_blocks)
    return rename_state(state, report), report


def report_keys(keys: Collection[str], num_blocks: int = 23) -> KeyReport:
    """Map every official key to a name of ``encoders.video``, ``projectors.general`` or ``llm``, or to a reason.

    Accepts VideoChat2's checkpoints of every stage, UMT's multi-modal files (``vision_encoder.encoder.*``) and its
    single-modal ones (``encoder.*``), with or without ``module.`` or ``model.`` before each key.

    Reference: VideoChat2 ``videochat2_it_mistral.py``, UMT ``vit.py``.
    Differs from the official loaders, whose ``strict=False`` accepts a wrong prefix and loads nothing.

    Args:
        keys: official keys.
        num_blocks: blocks of the vision encoder that are read; those above are dropped.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``, two keys are the same parameter, only part of the vision
            encoder is in the checkpoint, or nothing of it is read.
    """
    official = {key: _unify(key) for key in keys}
    has_text = any(".word_embeddings." in name for name in official.values())
    report = build_report(
        official,
        lambda key: _map_key(official[key], has_text),
        lambda key: _drop_reason(official[key], num_blocks),
        "VideoChat2 and UMT",
    )
    if not report.names:
        raise ValueError(
            f"no key of the checkpoint is read, it begins with {list(keys)[:3]}: "
            "is it an official checkpoint of VideoChat2-Mistral or UMT-L?"
        )
    _check_vision(set(report.names.values()), num_blocks)
    return report


def count_blocks(keys: Iterable[str]) -> int:
    """Return the number of blocks below the features of a checkpoint's vision encoder: all, or all but the last.

    VideoChat2 builds and saves only the blocks that it reads. UMT's own files are complete, with a final norm.
    """
    last = -1
    is_complete = False
    for key in keys:
        name = _unify(key)
        match = re.match(rf"{re.escape(_TOWER)}blocks\.(\d+)\.", name)
        if match:
            last = max(last, int(match[1]))
        elif name.startswith(f"{_TOWER}norm."):
            is_complete = True
    return last if is_complete else last + 1


def _unify(key: str) -> str:
    """Return the key in VideoChat2's spelling."""
    while key.startswith(("module.", "model.")):
        key = key.partition(".")[2]
    if key.startswith(("encoder.", "clip_decoder.", "pool_norm.")):
        return f"vision_encoder.{key}"
    return key


def _drop_reason(official: str, num_blocks: int) -> str | None:
    if official.startswith(f"{_TOWER}blocks."):
        block = official.removeprefix(f"{_TOWER}blocks.").partition(".")[0]
        if block.isdigit() and int(block) >= num_blocks:
            return ABOVE_FEATURES
    return find_reason(official, DROPPED)


def _map_key(official: str, has_text: bool) -> str | None:
    if official.startswith("qformer.bert."):
        official = _map_qformer(official, has_text)
    name = replace_prefix(official, PREFIXES)
    if name is None:
        return None
    return name.replace(".base_layer.", ".")  # the name of a weight below LoRA is the same as without LoRA


def _map_qformer(official: str, has_text: bool) -> str:
    """Return transformers' spelling: of ``InstructBlipQFormerModel``, or ``Blip2QFormerModel`` without text."""
    norm = "embeddings.layernorm." if has_text else "layernorm."
    return official.replace(".self.", ".attention.").replace("embeddings.LayerNorm.", norm)


def _check_vision(names: set[str], num_blocks: int) -> None:
    """Check that the vision encoder is complete or absent, as in stage 1, which does not save its frozen encoder."""
    prefix = "encoders.video.blocks."
    blocks = {int(name.removeprefix(prefix).partition(".")[0]) for name in names if name.startswith(prefix)}
    patch_embed = {"encoders.video.patch_embed.weight", "encoders.video.patch_embed.bias"}
    missing = [f"blocks.{block}" for block in range(num_blocks) if block not in blocks]
    if not patch_embed <= names:
        missing.append("patch_embed")
    has_vision = bool(blocks or patch_embed & names)
    if has_vision and (missing or blocks != set(range(num_blocks))):
        raise ValueError(
            f"the checkpoint holds part of a vision encoder of {num_blocks} blocks: {', '.join(missing)} are missing. "
            "Is it a shard, or of another size?"
        )
