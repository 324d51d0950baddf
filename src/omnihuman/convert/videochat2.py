"""Names of VideoChat2's and UMT's official parameters -> ours."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import Tensor

from omnihuman.convert.checkpoint import KeyReport, assign, first_match, replace_prefix, unpickle

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
"""Official prefix -> ours; what follows is the same on both sides, but for the Q-Former: ``_qformer``."""

DROPPED: dict[str, str] = {
    f"{_TOWER}norm.*": "features are read before the final norm",
    "*clip_decoder.*": "the head that UMT's pretraining matches to CLIP",
    "*pool_norm.*": "the norm of UMT's pooled video, features are patches",
    "text_encoder.*": "UMT's own text tower",
    "vision_temp_embed": "stage 1 adds it behind the vision encoder, later stages do without",
    "vision_proj.*": "a head of stage 1's contrastive loss",
    "text_proj.*": "a head of stage 1's contrastive loss",
    "itm_head.*": "a head of stage 1's matching loss",
    "temp": "the temperature of stage 1's contrastive loss",
    "qformer.cls.*": "the head of stage 1's caption loss",
    "qformer.bert.embeddings.position_ids": "a buffer of older transformers that counts 0, 1, 2",
    "mistral_model.*rotary_emb.inv_freq": "a buffer of older transformers, computed from the configuration",
}
"""Pattern of an official key that nothing here reads -> why."""

LAST = "features are read below the last block (return_index -2)"


def read(file: str | Path) -> dict[str, Tensor]:
    """The tensors of an official file, also where it wraps them in ``model`` or ``module``.

    Raises:
        ValueError: it is missing, or holds anything but plain tensors, numbers and containers.
    """
    found = unpickle(file)
    while isinstance(found, Mapping) and (inner := [found[key] for key in ("model", "module") if key in found]):
        found = inner[0]
    if not isinstance(found, Mapping):
        raise ValueError(f"{file} holds a {type(found).__name__}, no names with tensors.")
    return {key: tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}


def from_official(state: Mapping[str, Tensor], blocks: int = 23) -> tuple[dict[str, Tensor], KeyReport]:
    """An official state dict -> ours, and what became of each key; see ``report``."""
    found = report(state, blocks)
    return {name: state[key] for key, name in found.taken.items()}, found


def report(keys: Collection[str], blocks: int = 23) -> KeyReport:
    """What becomes of every official key; ours are of ``encoders.video``, ``projectors.general`` and ``llm``.

    Takes VideoChat2's checkpoints of every stage, UMT's multi-modal files (``vision_encoder.encoder.*``) and its
    single-modal ones (``encoder.*``), with or without ``module.`` or ``model.`` before each key.

    Reference: VideoChat2 ``videochat2_it_mistral.py``, UMT ``vit.py``.
    Differs from the official loaders, whose ``strict=False`` goes on where a prefix is wrong and nothing was loaded.

    Args:
        keys: official ones.
        blocks: how many blocks of the vision encoder are read; those above are dropped.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``, two keys are the same parameter, the vision encoder is
            there in part only, or nothing of the checkpoint is read here.
    """
    plain = {key: _plain(key) for key in keys}
    has_text = any(".word_embeddings." in name for name in plain.values())
    found = assign(
        plain,
        lambda key: _renamed(plain[key], has_text),
        lambda key: _dropped(plain[key], blocks),
        "VideoChat2 and UMT",
    )
    if not found.taken:
        raise ValueError(
            f"nothing of the checkpoint is read here, it begins with {list(keys)[:3]}: "
            "is it an official checkpoint of VideoChat2-Mistral or UMT-L?"
        )
    _check_whole(set(found.taken.values()), blocks)
    return found


def blocks_of(keys: Iterable[str]) -> int:
    """How many blocks the vision encoder of a checkpoint has below the state that is read: all, or all but the last.

    VideoChat2 builds and saves no more than it reads; UMT's own files are whole, with a final norm.
    """
    plain = [_plain(key) for key in keys]
    blocks = {int(match[1]) for name in plain if (match := re.match(rf"{re.escape(_TOWER)}blocks\.(\d+)\.", name))}
    whole = any(name.startswith(f"{_TOWER}norm.") for name in plain)
    return max(blocks, default=-1) + (0 if whole else 1)


def _plain(key: str) -> str:
    """The key as VideoChat2 writes it."""
    while key.startswith(("module.", "model.")):
        key = key.partition(".")[2]
    return f"vision_encoder.{key}" if key.startswith(("encoder.", "clip_decoder.", "pool_norm.")) else key


def _dropped(official: str, blocks: int) -> str | None:
    block = official.removeprefix(f"{_TOWER}blocks.").partition(".")[0]
    if official.startswith(f"{_TOWER}blocks.") and block.isdigit() and int(block) >= blocks:
        return LAST
    return first_match(official, DROPPED)


def _renamed(official: str, has_text: bool) -> str | None:
    if official.startswith("qformer.bert."):
        official = _qformer(official, has_text)
    ours = replace_prefix(official, PREFIXES)
    return None if ours is None else ours.replace(".base_layer.", ".")  # a weight is called so with LoRA or without


def _qformer(official: str, has_text: bool) -> str:
    """What transformers calls it: in ``InstructBlipQFormerModel``, and without text in ``Blip2QFormerModel``."""
    embeddings = "embeddings." if has_text else ""
    return official.replace(".self.", ".attention.").replace("embeddings.LayerNorm.", f"{embeddings}layernorm.")


def _check_whole(names: set[str], blocks: int) -> None:
    """Stage 1 writes nothing of the frozen vision encoder; whatever else has part of it has all of it."""
    tower = "encoders.video.blocks."
    have = {int(name.removeprefix(tower).partition(".")[0]) for name in names if name.startswith(tower)}
    stem = {f"encoders.video.patch_embed.{kind}" for kind in ("weight", "bias")} & names
    if (have or stem) and (len(stem) < 2 or have != set(range(blocks))):
        missing = [f"blocks.{block}" for block in sorted(set(range(blocks)) - have)]
        missing += ["patch_embed"] if len(stem) < 2 else []
        raise ValueError(
            f"the checkpoint holds part of a vision encoder of {blocks} blocks: {', '.join(missing)} are missing. "
            "Is it a shard, or of another size?"
        )
