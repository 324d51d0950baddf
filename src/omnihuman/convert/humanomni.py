"""Names of HumanOmni's official parameters <-> ours."""

from collections.abc import Collection, Mapping

from torch import Tensor

from omnihuman.convert.checkpoint import KeyReport, assign, first_match, replace_prefix
from omnihuman.convert.towers import TOWERS, to_part

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

ENCODERS: dict[str, dict[str, str]] = {
    "siglip": {"embeddings.": "encoders.video.embeddings.", "encoder.layers.": "encoders.video.layers."},
    "whisper": {"": "encoders.audio."},
    "bert": {"": "encoders.instruction.model."},
}
"""Kind of a tower -> prefix in a folder of its own -> ours."""

ADAPTERS = {"mm_projector": "model.mm_projector.", "audio_projector": "model.audio_projector."}
"""Name of a part that may lie in a file of its own -> its official prefix."""

LAST = "features are read below this block"
TIED = "the head is the embedding (tie_word_embeddings)"

DROPPED: dict[str, str] = {
    "model.feature_compressor.*": "two Linears that the compressor owns and never calls",
    "model.audio_tower.audio_tower.projector.*": "part of a classification head, never called and never trained",
    "model.audio_tower.audio_tower.classifier.*": "a classification head, never called and never trained",
    "model.bert_model.pooler.*": "the gate reads the raw [CLS] state, not the pooler's output",
    f"{_TOWER}vision_model.post_layernorm.*": "features are read before the final norm",
    f"{_TOWER}vision_model.head.*": "features are patches, not the pooled picture",
}
"""Pattern of an official key that nothing here reads -> why."""


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
    """An official state dict -> ours, and what became of each key; see ``report``."""
    found = report(state, _blocks_read(state))
    return {name: state[key] for key, name in found.taken.items()}, found


def report(keys: Collection[str], blocks: int | None = None, tied: bool = False) -> KeyReport:
    """What becomes of the keys of an official checkpoint.

    Takes the names of transformers 4 and of 5, which lost the segment ``vision_model.`` of the vision tower.

    Args:
        keys: official ones.
        blocks: how many blocks of the vision tower are read; those above are dropped. ``None`` reads all there are.
        tied: whether the head of the language model is its embedding.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``.
    """

    def dropped(key: str) -> str | None:
        if tied and key == "lm_head.weight":
            return TIED
        return _above(key, f"{_TOWER}vision_model.encoder.layers.", blocks) or first_match(_with_segment(key), DROPPED)

    return assign(keys, to_ours, dropped, "HumanOmni")


def report_tower(keys: Collection[str], kind: str, blocks: int | None = None) -> KeyReport:
    """What becomes of the keys of a folder of ``siglip``, ``whisper`` or ``bert`` alone, in every spelling of the hub.

    Raises:
        ValueError: a key is unknown.
    """
    unread = {**TOWERS[kind].dropped, "*post_layernorm.*": "features are read before the final norm"}

    def named(key: str) -> str | None:
        name = to_part(key, kind)
        return None if name is None else replace_prefix(name, ENCODERS[kind])

    def dropped(key: str) -> str | None:
        above = _above(key.removeprefix("vision_model."), "encoder.layers.", blocks) if kind == "siglip" else None
        return above or first_match(key, unread)

    return assign(keys, named, dropped, kind)


def report_adapter(keys: Collection[str], part: str) -> KeyReport:
    """What becomes of the keys of a file that holds one part alone: what stands before the part's name says nothing.

    Raises:
        ValueError: a key is not of that part.
    """

    def named(key: str) -> str | None:
        _, found, rest = key.rpartition(f"{part}.")
        return replace_prefix(ADAPTERS[part] + rest, PREFIXES) if found else None

    return assign(keys, named, lambda key: None, f"HumanOmni's {part}")


def _blocks_read(keys: Collection[str]) -> int | None:
    """All but the last block, if the tower is whole: one that we wrote ends below it, with no norm."""
    names = [_with_segment(key) for key in keys]
    whole = any(name.startswith(f"{_TOWER}vision_model.post_layernorm.") for name in names)
    blocks = [int(name.split(".")[6]) for name in names if name.startswith(f"{_TOWER}vision_model.encoder.layers.")]
    return max(blocks) if whole and blocks else None


def _above(key: str, prefix: str, blocks: int | None) -> str | None:
    block = _with_segment(key).removeprefix(prefix).partition(".")[0]
    return LAST if blocks is not None and block.isdigit() and int(block) >= blocks else None


def _with_segment(key: str) -> str:
    rest = key.removeprefix(_TOWER)
    return key if rest == key or rest.startswith("vision_model.") else f"{_TOWER}vision_model.{rest}"
