"""Names of VideoChat2's and UMT's official parameters -> ours."""

import pickle
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from omnihuman.convert.report import KeyReport

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
"""Official prefix -> ours; what follows is the same on both sides, but for the Q-Former, see ``_qformer``."""

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
    if not Path(file).is_file():
        raise ValueError(f"{file}: there is no such checkpoint.")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} is no plain checkpoint, other pickles are never read. If you trust it, save its 'model' entry "
            f"alone with torch.save. torch.load says: {error}"
        ) from error
    while isinstance(found, Mapping) and (inner := [found[key] for key in ("model", "module") if key in found]):
        found = inner[0]
    if not isinstance(found, Mapping):
        raise ValueError(f"{file} holds a {type(found).__name__}, no names with tensors.")
    return {key: tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}


def from_official(state: Mapping[str, Tensor], blocks: int = 23) -> tuple[dict[str, Tensor], KeyReport]:
    """An official state dict -> ours (of ``encoders.video``, ``projectors.general``, ``llm``), and what became of each.

    Takes VideoChat2's checkpoints of every stage, UMT's multi-modal files (``vision_encoder.encoder.*``) and its
    single-modal ones (``encoder.*``), with or without ``module.`` or ``model.`` before each key.

    Reference: VideoChat2 ``videochat2_it_mistral.py``, UMT ``vit.py``.
    Differs from the official loaders, whose ``strict=False`` goes on where a prefix is wrong and nothing was loaded.

    Args:
        state: official names with tensors.
        blocks: how many blocks of the vision encoder are read; those above are dropped.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``, two keys are the same parameter, the vision encoder is
            there in part only, or nothing of the checkpoint is read here.
    """
    plain = {key: _plain(key) for key in state}
    has_text = any(".word_embeddings." in name for name in plain.values())
    taken: dict[str, str] = {}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for key, official in plain.items():
        reason = _dropped(official, blocks)
        name = _renamed(official, has_text)
        if reason is not None:
            dropped[key] = reason
        elif name is None:
            unknown.append(key)
        elif name in taken.values():
            raise ValueError(f"the checkpoint holds {name} twice, the second time as {key!r}: give one of both.")
        else:
            taken[key] = name
    if unknown or not taken:
        raise ValueError(
            f"{len(unknown) or 'all'} keys of the checkpoint are none of VideoChat2's or UMT's that are read here, the "
            f"first {(unknown or list(state))[:3]}: is it an official checkpoint of VideoChat2-Mistral or UMT-L?"
        )
    _check_whole(set(taken.values()), blocks)
    return {name: state[key] for key, name in taken.items()}, KeyReport(taken, dropped)


def _plain(key: str) -> str:
    """The key as VideoChat2 writes it."""
    while key.startswith(("module.", "model.")):
        key = key.partition(".")[2]
    return f"vision_encoder.{key}" if key.startswith(("encoder.", "clip_decoder.", "pool_norm.")) else key


def _dropped(official: str, blocks: int) -> str | None:
    block = official.removeprefix(f"{_TOWER}blocks.").partition(".")[0]
    if official.startswith(f"{_TOWER}blocks.") and block.isdigit() and int(block) >= blocks:
        return LAST
    return next((why for pattern, why in DROPPED.items() if fnmatchcase(official, pattern)), None)


def _renamed(official: str, has_text: bool) -> str | None:
    for theirs, ours in PREFIXES.items():
        if official.startswith(theirs):
            rest = official.removeprefix(theirs)
            return ours + (_qformer(rest, has_text) if theirs == "qformer.bert." else rest)
    return None


def _qformer(rest: str, has_text: bool) -> str:
    """What transformers calls it: in ``InstructBlipQFormerModel``, and without text in ``Blip2QFormerModel``."""
    embeddings = "embeddings." if has_text else ""
    return rest.replace(".self.", ".attention.").replace("embeddings.LayerNorm.", f"{embeddings}layernorm.")


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
