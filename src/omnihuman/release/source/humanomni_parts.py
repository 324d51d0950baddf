"""What a HumanOmni checkpoint says of its parts: by its config.json, by its keys, and by the towers it names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omnihuman.convert import humanomni as names
from omnihuman.convert.checkpoint import KeyReport
from omnihuman.encoder.base import blocks_read
from omnihuman.release.shards import Checkpoint, adapters, local, open_checkpoint, read_config

FORMS = {"all_in_one": "7b", "all_in_one_small": "0_5b"}
"""``mm_projector_type`` -> the size whose wiring it is; every size of a part comes from the checkpoint."""

DEPTHS = {"7b": 4, "0_5b": 2}
"""Blocks of a RegStage, which their code fixes."""

FITTING = {
    "siglip": {
        768: "google/siglip-base-patch16-224", 1024: "google/siglip-large-patch16-384",
        1152: "google/siglip-so400m-patch14-384",
    },
    "whisper": {
        384: "openai/whisper-tiny", 512: "openai/whisper-base", 768: "openai/whisper-small",
        1024: "openai/whisper-medium", 1280: "openai/whisper-large-v3",
    },
    "bert": {768: "google-bert/bert-base-uncased", 1024: "google-bert/bert-large-uncased"},
}  # fmt: skip
"""Kind of a tower -> width of its tokens -> the released tower of that width."""

SIZES: dict[str, tuple[str, ...]] = {
    "siglip": ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers",
               "num_attention_heads"),
    "whisper": ("num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
    "bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
}  # fmt: skip
"""Kind of a tower -> the arguments of our encoder that its configuration decides."""

OPTIONS = {"siglip": "vision_tower", "whisper": "audio_tower", "bert": "instruction_encoder"}
PREFIXES = {"siglip": "encoders.video.", "whisper": "encoders.audio.", "bert": "encoders.instruction."}


class Tower(NamedTuple):
    """A tower that the model uses.

    Attributes:
        name: folder or hub id.
        folder: where it lies, ``None`` where only its name is known.
        sizes: arguments of our encoder.
        checkpoint: its weights, ``None`` where they are those that the model's checkpoint holds.
    """

    name: str
    folder: Path | None
    sizes: dict[str, int]
    checkpoint: Checkpoint | None

    @property
    def width(self) -> int:
        return self.sizes.get("d_model") or self.sizes["hidden_size"]


class Found(NamedTuple):
    """An official checkpoint with what lies beside it.

    Attributes:
        main: the checkpoint.
        config: its ``config.json``.
        form: ``7b`` or ``0_5b``.
        adapters: part -> a file that holds it alone.
        shapes: official key -> shape, of all of these.
        towers: by kind.
        blocks: how many blocks of the vision tower are read.
        compresses: whether the slow-fast compressor is on.
    """

    main: Checkpoint
    config: Mapping[str, Any]
    form: str
    adapters: Mapping[str, Checkpoint]
    shapes: Mapping[str, tuple[int, ...]]
    towers: Mapping[str, Tower]
    blocks: int
    compresses: bool

    @property
    def hears(self) -> bool:
        return "whisper" in self.towers


def find(path: str, options: Mapping[str, Any], presets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Found:
    """Open a checkpoint and all that belongs to it, and compare what they say.

    Args:
        path: folder, file or hub id of the checkpoint.
        options: of the request.
        presets: form -> kind of a tower -> its sizes as released, for a tower of which only the name is known.

    Raises:
        ValueError: something is missing or two contradict each other; both sides are named.
    """
    main = open_checkpoint(path)
    if all(key.startswith("module.") for key in main):  # saved from within DDP
        main = main.under("module.")
    if not any(key.startswith("model.layers.") for key in main):
        raise ValueError(
            f"{main.path} holds no language model, it begins with {list(main)[:2]}. A file of one part goes with a "
            "whole model: path=HumanOmni-7B-Video audio_projector=HumanOmni-7B-Audio/audio_projector.bin"
        )
    config = read_config(main.folder)
    parts = {name: open_checkpoint(file) for name, file in adapters(main.folder).items() if file != main.path}
    if options.get("audio_projector"):
        parts["audio_projector"] = open_checkpoint(str(options["audio_projector"]))
    shapes = {key: header.shape for key, header in main.headers.items()}
    for part, checkpoint in parts.items():
        ours = names.report_adapter(checkpoint, part).taken
        shapes |= {str(names.to_official(name)): checkpoint.headers[key].shape for key, name in ours.items()}
    form = _form(main, config, shapes)
    towers = _towers(main, config, options, shapes, presets[form])
    blocks = blocks_read(int(config.get("mm_vision_select_layer", -2)), towers["siglip"].sizes["num_hidden_layers"])
    found = Found(main, config, form, parts, shapes, towers, blocks, _compresses(main, config, form, shapes, options))
    _compare(found)
    return found


def _form(main: Checkpoint, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """7B or 0.5B, by the type of the projector; its depth must be that of the keys."""
    kind = config.get("mm_projector_type")
    if kind not in FORMS:
        raise ValueError(f"{main.folder}/config.json: mm_projector_type is {kind!r}, known are {', '.join(FORMS)}.")
    prefix = "model.mm_projector.s1_video.b"
    depth = len({key.removeprefix(prefix).partition(".")[0] for key in shapes if key.startswith(prefix)})
    if not depth:
        raise ValueError(f"{main.path} holds no model.mm_projector.s1_video, HumanOmni's projector: is it HumanOmni's?")
    if depth != DEPTHS[FORMS[kind]]:
        other = next((name for name, size in FORMS.items() if DEPTHS[size] == depth), "neither type")
        raise ValueError(
            f"config.json says mm_projector_type={kind}, whose stages have {DEPTHS[FORMS[kind]]} blocks, but the keys "
            f"model.mm_projector.s1_video.b* of {main.path.name} have {depth}, as {other} has: one of both is of "
            "another model."
        )
    return FORMS[kind]


def _compresses(
    main: Checkpoint, config: Mapping[str, Any], form: str, shapes: Mapping[str, Any], options: Mapping[str, Any]
) -> bool:
    if options.get("compressor") is not None:
        return bool(options["compressor"])
    holds = any(key.startswith("model.feature_compressor.") for key in shapes)
    if form == "0_5b" and holds:
        raise ValueError(
            f"config.json says mm_projector_type={config['mm_projector_type']}, whose code (R1-Omni) has no "
            f"compressor, but {main.path.name} holds model.feature_compressor, which only HumanOmni's code writes: "
            "say which it was, compressor=true or compressor=false."
        )
    return form == "7b"


def _towers(
    main: Checkpoint,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    presets: Mapping[str, Mapping[str, Any]],
) -> dict[str, Tower]:
    fitting = FITTING["siglip"].get(width_of(shapes, "siglip") or 0)
    towers = {"siglip": _tower("siglip", main, options, config.get("mm_vision_tower") or fitting, presets)}
    width = width_of(shapes, "whisper")
    named = config.get("mm_audio_tower")
    if options.get("audio_projector") and not named:
        named = FITTING["whisper"].get(width or 0)
    if width and not (named or options.get("audio_tower")):
        raise ValueError(
            f"config.json of {main.folder} names no mm_audio_tower, but there is an audio projector of width {width}: "
            f"give audio_tower={FITTING['whisper'].get(width, '<its Whisper>')}."
        )
    if named or options.get("audio_tower"):
        towers["whisper"] = _tower("whisper", main, options, named, presets)
    towers["bert"] = _tower("bert", main, options, FITTING["bert"][768], presets)
    return towers


def _tower(
    kind: str, main: Checkpoint, options: Mapping[str, Any], named: str | None, presets: Mapping[str, Mapping[str, Any]]
) -> Tower:
    """A tower by the user's word, or by the name that the model's configuration has for it."""
    option, held = OPTIONS[kind], any(key.startswith(_HELD[kind]) for key in main)
    name = str(options.get(option) or named)
    folder = next((path for path in (main.folder / name, Path(name).expanduser()) if path.is_dir()), None)
    if folder is None and (kind == "bert" or options.get(option) or not held):
        try:
            folder = local(name)
        except ValueError as error:
            raise ValueError(f"{kind}: {error} Say where it is with {option}=<folder or hub id>.") from error
    if folder is None:
        return Tower(name, None, {key: int(presets[kind][key]) for key in SIZES[kind]}, None)
    # their loader reads vision and audio from the towers' own folders, and BERT from the checkpoint
    own = not held or (kind != "bert" and bool(options.get(option)))
    return Tower(name, folder, _sizes(kind, folder), open_checkpoint(folder) if own else None)


_HELD = {"siglip": "model.vision_tower.", "whisper": "model.audio_tower.", "bert": "model.bert_model."}


def _sizes(kind: str, folder: Path) -> dict[str, int]:
    from transformers import BertConfig, SiglipVisionConfig, WhisperConfig

    model_type = str(read_config(folder).get("model_type"))
    if not model_type.startswith(kind):
        raise ValueError(f"{folder} is a {model_type}, a {kind} is needed: give {OPTIONS[kind]}=<folder or hub id>.")
    config = {"siglip": SiglipVisionConfig, "whisper": WhisperConfig, "bert": BertConfig}[kind].from_pretrained(folder)
    return {key: int(getattr(config, key)) for key in SIZES[kind]}


def width_of(shapes: Mapping[str, tuple[int, ...]], kind: str) -> int | None:
    """The width of a tower's tokens by the first layer that reads them."""
    first = {"siglip": "mm_projector.mlp_2xgelu_face", "whisper": "audio_projector", "bert": "bert_gate"}[kind]
    shape = shapes.get(f"model.{first}.0.weight")
    return shape[1] if shape else None


def _compare(found: Found) -> None:
    """Whether the sizes that are said more than once are the same each time."""
    config, shapes = found.config, found.shapes
    fields = {"siglip": "mm_hidden_size", "whisper": "audio_hidden_size"}
    for kind, tower in found.towers.items():
        width = width_of(shapes, kind)
        sides = {f"the {kind} tower {tower.name}": tower.width, "the layer of the checkpoint that reads it": width}
        if field := fields.get(kind):
            sides[f"config.json's {field}"] = config.get(field)
        fits = FITTING[kind].get(width or 0)
        known = ", ".join(f"{wide} {name}" for wide, name in FITTING[kind].items())
        cure = f"={fits} fits the checkpoint" if fits else f"=<folder or hub id>, known widths are {known}"
        _same(f"the width of {kind}'s tokens", sides, OPTIONS[kind] + cure)
    embedding, head = shapes.get("model.embed_tokens.weight", (None, None)), shapes.get("lm_head.weight", (None, None))
    whose = "take config.json and weights from the same download"
    sides = {"config.json's vocab_size": config.get("vocab_size"), "rows of model.embed_tokens.weight": embedding[0]}
    _same("the vocabulary", sides | {"rows of lm_head.weight": head[0]}, whose)
    last = shapes.get("model.mm_projector.readout_video.2.weight", (None, None))
    sides = {"config.json's hidden_size": config.get("hidden_size"), "model.embed_tokens.weight": embedding[1]}
    _same("the width of the language model", sides | {"model.mm_projector.readout_video.2.weight": last[0]}, whose)
    gate = [shapes.get(f"model.bert_gate.{layer}.weight", (None, None)) for layer in (0, 2)]
    _same("the gate's width", {"bert_gate.0.weight": gate[0][0], "bert_gate.2.weight": gate[1][1]}, whose)
    _same("the gate's branches", {"bert_gate.2.weight": gate[1][0], "video, body and face": 3}, whose)
    if config.get("mm_vision_select_feature", "patch") != "patch":
        said = config["mm_vision_select_feature"]
        raise ValueError(f"config.json's mm_vision_select_feature is {said!r}: SigLIP has patches only.")


def _same(what: str, sides: Mapping[str, int | None], cure: str) -> None:
    said = {who: value for who, value in sides.items() if value is not None}
    if len(set(said.values())) > 1:
        listed = ", ".join(f"{value} by {who}" for who, value in said.items())
        raise ValueError(f"{what} is {listed}: {cure}.")


def cures(found: Found) -> dict[str, str]:
    """Pattern of our names -> what to do where such a one is in no file."""
    give = "give {}=<folder or hub id>, what was given has not all of it"
    said: dict[str, str] = {f"{PREFIXES[kind]}*": give.format(OPTIONS[kind]) for kind in found.towers}
    said["projectors.audio.*"] = (
        "the checkpoint has no audio projector though config.json names mm_audio_tower: give audio_projector="
        "<HumanOmni-7B-Audio/audio_projector.bin>"
    )
    said["llm.model.lm_head.*"] = "config.json does not say tie_word_embeddings: is a shard missing?"
    return said


def moved(report: KeyReport, prefixes: Sequence[str], why: str) -> KeyReport:
    """A report where what begins with one of these names of ours is not taken."""
    gone = {key: why for key, name in report.taken.items() if name.startswith(tuple(prefixes))}
    taken = {key: name for key, name in report.taken.items() if key not in gone}
    return KeyReport(taken, {**report.dropped, **gone})
