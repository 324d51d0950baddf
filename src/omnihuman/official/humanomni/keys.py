"""Names of HumanOmni's official parameters <-> our names."""

from collections.abc import Collection, Mapping

from torch import Tensor

from omnihuman.official.keys import KeyReport, build_report, find_reason, rename_state, replace_prefix
from omnihuman.official.towers.keys import KEY_MAPS
from omnihuman.official.towers.keys import map_key as map_tower_key

_TOWER = "model.vision_tower.vision_tower."
_VISION = f"{_TOWER}vision_model."
_BLOCKS = f"{_VISION}encoder.layers."

PREFIXES: dict[str, str] = {
    "model.mm_projector.s1_video.": "projectors.interaction.s1.",
    "model.mm_projector.sampler_video.": "projectors.interaction.sampler.",
    "model.mm_projector.s2_video.": "projectors.interaction.s2.",
    "model.mm_projector.readout_video.": "projectors.interaction.readout.",
    "model.mm_projector.s1_body.": "projectors.body.s1.",
    "model.mm_projector.sampler_body.": "projectors.body.sampler.",
    "model.mm_projector.s2_body.": "projectors.body.s2.",
    "model.mm_projector.readout_body.": "projectors.body.readout.",
    "model.mm_projector.mlp_2xgelu_face.": "projectors.face.layers.",
    "model.audio_projector.": "projectors.audio.layers.",
    "model.bert_gate.": "fusions.gate.layers.",
    "model.bert_model.": "encoders.instruction.model.",
    f"{_VISION}embeddings.": "encoders.video.embeddings.",
    _BLOCKS: "encoders.video.layers.",
    "model.audio_tower.audio_tower.encoder.": "encoders.audio.",
    "model.embed_tokens.": "llm.model.model.embed_tokens.",
    "model.layers.": "llm.model.model.layers.",
    "model.norm.": "llm.model.model.norm.",
    "lm_head.": "llm.model.lm_head.",
}
"""Official prefix -> ours; the rest of a key is the same on both sides."""

ENCODERS: dict[str, dict[str, str]] = {
    "siglip": {"embeddings.": "encoders.video.embeddings.", "encoder.layers.": "encoders.video.layers."},
    "whisper": {"": "encoders.audio."},
    "bert": {"": "encoders.instruction.model."},
}
"""Kind of a tower -> prefix in the tower's own folder -> our prefix."""

ADAPTERS = {"mm_projector": "model.mm_projector.", "audio_projector": "model.audio_projector."}
"""Name of a part that may have a file of its own -> its official prefix."""

ABOVE_FEATURES = "features are read below this block"
TIED = "the head is the embedding (tie_word_embeddings)"

DROPPED: dict[str, str] = {
    "model.feature_compressor.*": "two Linears of the compressor that are never called",
    "model.audio_tower.audio_tower.projector.*": "part of a classification head, never called and never trained",
    "model.audio_tower.audio_tower.classifier.*": "a classification head, never called and never trained",
    "model.bert_model.pooler.*": "the gate reads the raw [CLS] state, not the pooler's output",
    f"{_VISION}post_layernorm.*": "features are read before the final norm",
    f"{_VISION}head.*": "features are patches, not the pooled image",
}
"""Pattern of an official key that nothing reads -> why."""


def map_key(key: str) -> str | None:
    """Return our name of an official parameter, ``None`` if no part of ours has such a parameter.

    >>> map_key("model.mm_projector.s1_video.b1.conv1.conv.weight")
    'projectors.interaction.s1.b1.conv1.conv.weight'
    """
    return replace_prefix(_restore_segment(key), PREFIXES)


def map_to_official(name: str) -> str | None:
    """Return the official name of one of our parameters, as transformers 4 writes it.

    ``None`` if HumanOmni has no such part.

    >>> map_to_official("fusions.gate.layers.0.weight")
    'model.bert_gate.0.weight'
    """
    return replace_prefix(name, {prefix: official for official, prefix in PREFIXES.items()})


def convert_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
    """Return an official state dict under our names, and the report on its keys; see ``report_keys``."""
    report = report_keys(state, _num_blocks(state))
    return rename_state(state, report), report


def report_keys(keys: Collection[str], num_blocks: int | None = None, is_tied: bool = False) -> KeyReport:
    """Map every key of an official checkpoint to our name or to the reason why it is dropped.

    Accepts the names of transformers 4 and of 5, which has no segment ``vision_model.`` in the vision tower.

    Args:
        keys: official keys.
        num_blocks: blocks of the vision tower that are read; those above are dropped. ``None`` reads all.
        is_tied: the head of the language model is its embedding.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``.
    """

    def drop_reason(key: str) -> str | None:
        if is_tied and key == "lm_head.weight":
            return TIED
        key = _restore_segment(key)
        if _is_above(key.removeprefix(_BLOCKS), num_blocks):
            return ABOVE_FEATURES
        return find_reason(key, DROPPED)

    return build_report(keys, map_key, drop_reason, "HumanOmni")


def report_tower_keys(keys: Collection[str], kind: str, num_blocks: int | None = None) -> KeyReport:
    """Map the keys of a folder that holds a ``siglip``, ``whisper`` or ``bert`` alone, in every spelling of the hub.

    Raises:
        ValueError: a key is unknown.
    """
    reasons = {**KEY_MAPS[kind].dropped, "*post_layernorm.*": "features are read before the final norm"}

    def map_key(key: str) -> str | None:
        name = map_tower_key(key, kind)
        return None if name is None else replace_prefix(name, ENCODERS[kind])

    def drop_reason(key: str) -> str | None:
        block = key.removeprefix("vision_model.").removeprefix("encoder.layers.")
        if kind == "siglip" and _is_above(block, num_blocks):
            return ABOVE_FEATURES
        return find_reason(key, reasons)

    return build_report(keys, map_key, drop_reason, kind)


def report_adapter_keys(keys: Collection[str], part: str) -> KeyReport:
    """Map the keys of a file that holds one part alone, whatever prefix precedes the part's name.

    Raises:
        ValueError: a key is not of that part.
    """

    def map_key(key: str) -> str | None:
        _, separator, rest = key.rpartition(f"{part}.")
        return replace_prefix(ADAPTERS[part] + rest, PREFIXES) if separator else None

    return build_report(keys, map_key, lambda key: None, f"HumanOmni's {part}")


def _num_blocks(keys: Collection[str]) -> int | None:
    """Return the number of blocks that are read: all but the last of a complete tower, else ``None`` for all.

    Our own export ends below the last block and has no final norm, so the norm identifies a complete tower.
    """
    names = [_restore_segment(key) for key in keys]
    is_complete = any(name.startswith(f"{_VISION}post_layernorm.") for name in names)
    blocks = [int(name.removeprefix(_BLOCKS).partition(".")[0]) for name in names if name.startswith(_BLOCKS)]
    return max(blocks) if is_complete and blocks else None


def _is_above(rest: str, num_blocks: int | None) -> bool:
    """Return whether a key, from its block index on, is of a block above those that are read."""
    block = rest.partition(".")[0]
    return num_blocks is not None and block.isdigit() and int(block) >= num_blocks


def _restore_segment(key: str) -> str:
    """Return the key with the segment ``vision_model.`` that transformers 5 leaves out."""
    if key.startswith(_TOWER) and not key.startswith(_VISION):
        return _VISION + key.removeprefix(_TOWER)
    return key
