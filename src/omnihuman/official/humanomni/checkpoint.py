"""The parts of a HumanOmni checkpoint by its config.json, its keys, and the towers that the config names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omnihuman.encoder.base import count_blocks
from omnihuman.official.checkpoint import (
    Checkpoint,
    find_adapters,
    open_checkpoint,
    read_config,
    resolve_path,
)
from omnihuman.official.humanomni import keys as keys
from omnihuman.official.keys import KeyReport

Shapes = Mapping[str, tuple[int, ...]]
Sizes = Mapping[str, Mapping[str, Any]]

PRESETS = {"all_in_one": "7b", "all_in_one_small": "0_5b"}
"""``mm_projector_type`` -> the preset with its wiring; the size of every part comes from the checkpoint."""

DEPTHS = {"7b": 4, "0_5b": 2}
"""Preset -> blocks of a RegStage, which the official code fixes."""

TOWERS_BY_WIDTH = {
    "siglip": {
        768: "google/siglip-base-patch16-224",
        1024: "google/siglip-large-patch16-384",
        1152: "google/siglip-so400m-patch14-384",
    },
    "whisper": {
        384: "openai/whisper-tiny",
        512: "openai/whisper-base",
        768: "openai/whisper-small",
        1024: "openai/whisper-medium",
        1280: "openai/whisper-large-v3",
    },
    "bert": {768: "google-bert/bert-base-uncased", 1024: "google-bert/bert-large-uncased"},
}
"""Kind of a tower -> width of its tokens -> the released tower of that width."""

TOWER_SIZES: dict[str, tuple[str, ...]] = {
    "siglip": (
        "image_size",
        "patch_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ),
    "whisper": ("num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
    "bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
}
"""Kind of a tower -> the arguments of our encoder that come from its configuration."""

TOWER_OPTIONS = {"siglip": "vision_tower", "whisper": "audio_tower", "bert": "instruction_encoder"}
"""Kind of a tower -> the option that replaces it."""

TOWER_PREFIXES = {"siglip": "encoders.video.", "whisper": "encoders.audio.", "bert": "encoders.instruction."}
"""Kind of a tower -> prefix of our names."""

_OFFICIAL_PREFIXES = {"siglip": "model.vision_tower.", "whisper": "model.audio_tower.", "bert": "model.bert_model."}

_INPUT_LAYERS = {"siglip": "mm_projector.mlp_2xgelu_face", "whisper": "audio_projector", "bert": "bert_gate"}
"""Kind of a tower -> the layer that reads its tokens."""


class Tower(NamedTuple):
    """A tower of the model.

    Attributes:
        name: folder or hub id.
        folder: of its files, ``None`` if only its name is known.
        sizes: arguments of our encoder.
        checkpoint: its weights, ``None`` if the model's checkpoint has them.
    """

    name: str
    folder: Path | None
    sizes: dict[str, int]
    checkpoint: Checkpoint | None

    @property
    def width(self) -> int:
        return self.sizes.get("d_model") or self.sizes["hidden_size"]


class OfficialCheckpoint(NamedTuple):
    """An official checkpoint with the files that belong to it.

    Attributes:
        main: the checkpoint.
        config: its ``config.json``.
        preset: ``7b`` or ``0_5b``.
        adapters: part -> a file that holds it alone.
        shapes: official key -> shape, of the checkpoint and its adapters.
        towers: by kind.
        num_blocks: blocks of the vision tower that are read.
        has_compressor: the slow-fast compressor is on.
    """

    main: Checkpoint
    config: Mapping[str, Any]
    preset: str
    adapters: Mapping[str, Checkpoint]
    shapes: Shapes
    towers: Mapping[str, Tower]
    num_blocks: int
    has_compressor: bool

    @property
    def has_audio(self) -> bool:
        return "whisper" in self.towers

    @property
    def is_tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", False))


def open_official(path: str, options: Mapping[str, Any], released_sizes: Mapping[str, Sizes]) -> OfficialCheckpoint:
    """Open a checkpoint and the files that belong to it, and check that they agree.

    Args:
        path: folder, file or hub id of the checkpoint.
        options: of the request.
        released_sizes: preset -> kind of a tower -> its sizes as released, for a tower of which only the name is known.

    Raises:
        ValueError: a file is missing, or two sources contradict each other; both are named.
    """
    main = open_checkpoint(path)
    if all(key.startswith("module.") for key in main):  # saved from a DDP module
        main = main.select_prefix("module.")
    if not main.has_prefix("model.layers."):
        raise ValueError(
            f"{main.path} has no language model, it begins with {list(main)[:2]}. A file of one part needs the rest of "
            "the model: path=HumanOmni-7B-Video audio_projector=HumanOmni-7B-Audio/audio_projector.bin"
        )
    config = read_config(main.folder)
    adapters = {part: open_checkpoint(file) for part, file in find_adapters(main.folder).items() if file != main.path}
    if options.get("audio_projector"):
        adapters["audio_projector"] = open_checkpoint(str(options["audio_projector"]))
    shapes = {key: header.shape for key, header in main.headers.items()}
    for part, adapter in adapters.items():
        for key, name in keys.report_adapter_keys(adapter, part).names.items():
            shapes[str(keys.map_to_official(name))] = adapter.headers[key].shape
    preset = _find_preset(main, config, shapes)
    towers = _open_towers(main, config, options, shapes, released_sizes[preset])
    num_blocks = count_blocks(
        int(config.get("mm_vision_select_layer", -2)), towers["siglip"].sizes["num_hidden_layers"]
    )
    has_compressor = _has_compressor(main, config, preset, options)
    official = OfficialCheckpoint(main, config, preset, adapters, shapes, towers, num_blocks, has_compressor)
    _check_sizes(official)
    return official


def _find_preset(main: Checkpoint, config: Mapping[str, Any], shapes: Shapes) -> str:
    """Return the preset of the projector's type, after a check of its depth against the keys."""
    projector = config.get("mm_projector_type")
    if projector not in PRESETS:
        raise ValueError(
            f"{main.folder}/config.json: unknown mm_projector_type {projector!r}; expected {' or '.join(PRESETS)}."
        )
    preset = PRESETS[projector]
    prefix = "model.mm_projector.s1_video.b"
    depth = len({key.removeprefix(prefix).partition(".")[0] for key in shapes if key.startswith(prefix)})
    if not depth:
        raise ValueError(f"{main.path} has no model.mm_projector.s1_video, HumanOmni's projector: is it HumanOmni's?")
    if depth != DEPTHS[preset]:
        fitting = [name for name, size in PRESETS.items() if DEPTHS[size] == depth] or ["neither type"]
        raise ValueError(
            f"config.json has mm_projector_type={projector}, whose stages have {DEPTHS[preset]} blocks, but the keys "
            f"model.mm_projector.s1_video.b* of {main.path.name} have {depth}, as {fitting[0]} has: one of both is of "
            "another model."
        )
    return preset


def _has_compressor(main: Checkpoint, config: Mapping[str, Any], preset: str, options: Mapping[str, Any]) -> bool:
    if options.get("compressor") is not None:
        return bool(options["compressor"])
    if preset == "0_5b" and main.has_prefix("model.feature_compressor."):
        raise ValueError(
            f"config.json has mm_projector_type={config['mm_projector_type']}, whose code (R1-Omni) has no "
            f"compressor, but {main.path.name} has model.feature_compressor, which only HumanOmni's code writes: "
            "give compressor=true or compressor=false."
        )
    return preset == "7b"


def _open_towers(
    main: Checkpoint,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    shapes: Shapes,
    released_sizes: Sizes,
) -> dict[str, Tower]:
    fitting = TOWERS_BY_WIDTH["siglip"].get(input_width(shapes, "siglip") or 0)
    towers = {"siglip": _open_tower("siglip", main, options, config.get("mm_vision_tower") or fitting, released_sizes)}
    width = input_width(shapes, "whisper")
    audio_tower = config.get("mm_audio_tower")
    if options.get("audio_projector") and not audio_tower:
        audio_tower = TOWERS_BY_WIDTH["whisper"].get(width or 0)
    has_audio = bool(audio_tower or options.get("audio_tower"))
    if width and not has_audio:
        raise ValueError(
            f"config.json of {main.folder} names no mm_audio_tower, but there is an audio projector of width {width}: "
            f"give audio_tower={TOWERS_BY_WIDTH['whisper'].get(width, '<its Whisper>')}."
        )
    if has_audio:
        towers["whisper"] = _open_tower("whisper", main, options, audio_tower, released_sizes)
    towers["bert"] = _open_tower("bert", main, options, TOWERS_BY_WIDTH["bert"][768], released_sizes)
    return towers


def _open_tower(
    kind: str, main: Checkpoint, options: Mapping[str, Any], default: str | None, released_sizes: Sizes
) -> Tower:
    """Open the tower of the user's option, or else that of the model's configuration."""
    option = TOWER_OPTIONS[kind]
    is_option = bool(options.get(option))
    is_in_main = main.has_prefix(_OFFICIAL_PREFIXES[kind])
    name = str(options.get(option) or default)
    folder = find_folder(name, main.folder)
    if folder is None and (kind == "bert" or is_option or not is_in_main):
        try:
            folder = resolve_path(name)
        except ValueError as error:
            raise ValueError(f"{kind}: {error} Give {option}=<folder or hub id>.") from error
    if folder is None:
        return Tower(name, None, {key: int(released_sizes[kind][key]) for key in TOWER_SIZES[kind]}, None)
    sizes = _read_sizes(kind, folder)  # before the checkpoint, so that a tower of another kind is named as such
    # The official loader reads vision and audio from the towers' own folders, and BERT from the checkpoint.
    is_separate = not is_in_main or (kind != "bert" and is_option)
    checkpoint = open_checkpoint(folder) if is_separate else None
    return Tower(name, folder, sizes, checkpoint)


def find_folder(name: str, base: Path) -> Path | None:
    """Return the folder of a tower's name, relative to ``base`` or as a path of its own; ``None`` without one."""
    for folder in (base / name, Path(name).expanduser()):
        if folder.is_dir():
            return folder
    return None


def _read_sizes(kind: str, folder: Path) -> dict[str, int]:
    from transformers import BertConfig, SiglipVisionConfig, WhisperConfig

    model_type = str(read_config(folder).get("model_type"))
    if not model_type.startswith(kind):
        raise ValueError(
            f"{folder} is a {model_type}, expected a {kind}: give {TOWER_OPTIONS[kind]}=<folder or hub id>."
        )
    config = {"siglip": SiglipVisionConfig, "whisper": WhisperConfig, "bert": BertConfig}[kind].from_pretrained(folder)
    return {key: int(getattr(config, key)) for key in TOWER_SIZES[kind]}


def input_width(shapes: Shapes, kind: str) -> int | None:
    """Return the width of a tower's tokens, by the input of the layer that reads them."""
    shape = shapes.get(f"model.{_INPUT_LAYERS[kind]}.0.weight")
    return shape[1] if shape else None


def _check_sizes(official: OfficialCheckpoint) -> None:
    """Check that all sources of a size agree."""
    config, shapes = official.config, official.shapes
    for kind, tower in official.towers.items():
        _check_width(kind, tower, official)
    embedding = shapes.get("model.embed_tokens.weight", (None, None))
    head = shapes.get("lm_head.weight", (None, None))
    readout = shapes.get("model.mm_projector.readout_video.2.weight", (None, None))
    first_gate = shapes.get("model.bert_gate.0.weight", (None, None))
    last_gate = shapes.get("model.bert_gate.2.weight", (None, None))
    cure = "take config.json and weights from the same download"
    vocabulary = {
        "config.json's vocab_size": config.get("vocab_size"),
        "rows of model.embed_tokens.weight": embedding[0],
        "rows of lm_head.weight": head[0],
    }
    width = {
        "config.json's hidden_size": config.get("hidden_size"),
        "model.embed_tokens.weight": embedding[1],
        "model.mm_projector.readout_video.2.weight": readout[0],
    }
    _check_equal("the vocabulary", vocabulary, cure)
    _check_equal("the width of the language model", width, cure)
    _check_equal("the gate's width", {"bert_gate.0.weight": first_gate[0], "bert_gate.2.weight": last_gate[1]}, cure)
    _check_equal("the gate's branches", {"bert_gate.2.weight": last_gate[0], "video, body and face": 3}, cure)
    feature = config.get("mm_vision_select_feature", "patch")
    if feature != "patch":
        raise ValueError(f"config.json's mm_vision_select_feature is {feature!r}: SigLIP has patches only.")


def _check_width(kind: str, tower: Tower, official: OfficialCheckpoint) -> None:
    """Check the width of a tower's tokens against config.json and the layer that reads them."""
    width = input_width(official.shapes, kind)
    values = {f"the {kind} tower {tower.name}": tower.width, "the layer of the checkpoint that reads it": width}
    field = {"siglip": "mm_hidden_size", "whisper": "audio_hidden_size"}.get(kind)
    if field:
        values[f"config.json's {field}"] = official.config.get(field)
    fitting = TOWERS_BY_WIDTH[kind].get(width or 0)
    known = ", ".join(f"{size} {name}" for size, name in TOWERS_BY_WIDTH[kind].items())
    cure = f"={fitting} fits the checkpoint" if fitting else f"=<folder or hub id>, known widths are {known}"
    _check_equal(f"the width of {kind}'s tokens", values, TOWER_OPTIONS[kind] + cure)


def _check_equal(name: str, values: Mapping[str, int | None], cure: str) -> None:
    known = {source: value for source, value in values.items() if value is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{value} by {source}" for source, value in known.items())
        raise ValueError(f"{name} is {listed}: {cure}.")


def build_hints(official: OfficialCheckpoint) -> dict[str, str]:
    """Return the cure for a missing parameter, by pattern of our names."""
    hints: dict[str, str] = {}
    for kind in official.towers:
        hints[f"{TOWER_PREFIXES[kind]}*"] = f"give {TOWER_OPTIONS[kind]}=<folder or hub id>, the tower is incomplete"
    hints["projectors.audio.*"] = (
        "the checkpoint has no audio projector though config.json names mm_audio_tower: give audio_projector="
        "<HumanOmni-7B-Audio/audio_projector.bin>"
    )
    hints["llm.model.lm_head.*"] = "config.json has no tie_word_embeddings: is a shard missing?"
    return hints


def drop_names(report: KeyReport, prefixes: Sequence[str], reason: str) -> KeyReport:
    """Return a report in which the keys of our names with these prefixes are dropped."""
    names: dict[str, str] = {}
    dropped = dict(report.dropped)
    for key, name in report.names.items():
        if name.startswith(tuple(prefixes)):
            dropped[key] = reason
        else:
            names[key] = name
    return KeyReport(names, dropped)
