"""Names of HumanOmni's official parameters <-> ours."""

from collections.abc import Mapping

from torch import Tensor

from omnihuman.convert.checkpoint import KeyReport, first_match, rename, replace_prefix

_TOWER = "model.vision_tower.vision_tower."

PREFIXES: dict[str, str] = {
    **{
        f"model.mm_projector.{layer}_{theirs}.": f"projectors.{ours}.{layer}."
        for theirs, ours in (("video", "interaction"), ("body", "body"))
        for layer in ("s1", "sampler", "s2", "readout")
    },
    "model.mm_projector.mlp_2xgelu_face.": "projectors.face.layers.",
    "model.audio_projector.": "projectors.audio.layers.",
    "model.bert_gate.": "fusions.gate.layers.",
    "model.bert_model.": "encoders.instruction.model.",
    f"{_TOWER}vision_model.embeddings.": "encoders.video.embeddings.",
    f"{_TOWER}vision_model.encoder.layers.": "encoders.video.layers.",
    "model.audio_tower.audio_tower.encoder.": "encoders.audio.",
    "model.embed_tokens.": "llm.model.model.embed_tokens.",
    "model.layers.": "llm.model.model.layers.",
    "model.norm.": "llm.model.model.norm.",
    "lm_head.": "llm.model.lm_head.",
}
"""Official prefix -> ours; what follows a prefix is the same on both sides."""

DROPPED: dict[str, str] = {
    "model.feature_compressor.*": "two Linears that the compressor owns and never calls",
    "model.audio_tower.audio_tower.projector.*": "part of a classification head, never called and never trained",
    "model.audio_tower.audio_tower.classifier.*": "a classification head, never called and never trained",
    "model.bert_model.pooler.*": "the gate reads the raw [CLS] state, not the pooler's output",
    f"{_TOWER}vision_model.post_layernorm.*": "features are read before the final norm",
    f"{_TOWER}vision_model.head.*": "features are patches, not the pooled picture",
    f"{_TOWER}vision_model.encoder.layers.LAST.*": "features are read below the last block (select_layer -2)",
}
"""Pattern of an official key that nothing here reads -> why. ``LAST`` stands for the number of the last block."""


def to_ours(key: str) -> str | None:
    """Our name of an official parameter, ``None`` if none of our parts could have one.

    >>> to_ours("model.mm_projector.s1_video.b1.conv1.conv.weight")
    'projectors.interaction.s1.b1.conv1.conv.weight'
    """
    return replace_prefix(_with_segment(key), PREFIXES)


def to_official(name: str) -> str | None:
    """The official name, as transformers 4 writes it, of one of our parameters; ``None`` if HumanOmni has no such part.

    >>> to_official("fusions.gate.layers.0.weight")
    'model.bert_gate.0.weight'
    """
    return replace_prefix(name, {ours: theirs for theirs, ours in PREFIXES.items()})


def from_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
    """An official state dict -> ours, and what became of each key.

    Takes the names of transformers 4 and of 5, which lost the segment ``vision_model.`` of the vision tower.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``.
    """
    last = _last_block(state)
    patterns = {pattern.replace("LAST", last): why for pattern, why in DROPPED.items()}
    return rename(state, to_ours, lambda key: first_match(_with_segment(key), patterns), "HumanOmni")


def _last_block(state: Mapping[str, Tensor]) -> str:
    """Number of the vision tower's last block, if the tower is whole: one that we wrote ends below it, with no norm."""
    names = [_with_segment(key) for key in state]
    whole = any(name.startswith(f"{_TOWER}vision_model.post_layernorm.") for name in names)
    blocks = [int(name.split(".")[6]) for name in names if name.startswith(f"{_TOWER}vision_model.encoder.layers.")]
    return str(max(blocks)) if whole and blocks else "none"


def _with_segment(key: str) -> str:
    rest = key.removeprefix(_TOWER)
    return key if rest == key or rest.startswith("vision_model.") else f"{_TOWER}vision_model.{rest}"
