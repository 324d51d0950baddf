"""Conversion of LLaVA-OneVision, in either layout, to Omni-Emotion's video path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from omnihuman.build import build, compose_part
from omnihuman.encoder.base import count_blocks
from omnihuman.model.omni import OmniModel
from omnihuman.official.checkpoint import Checkpoint, open_checkpoint, read_config, resolve_path
from omnihuman.official.conversion import (
    Conversion,
    MappedCheckpoint,
    Request,
    change_experiment,
    copy_tokenizer,
    parameter_shapes,
)
from omnihuman.official.humanomni.checkpoint import TOWER_SIZES, TOWERS_BY_WIDTH, drop_names, find_folder
from omnihuman.official.llava_onevision import keys as keys
from omnihuman.official.llava_onevision.tiles import read_tiles
from omnihuman.official.towers.read import build_hub_config, select_architecture
from omnihuman.training.chain import list_stages

EXPERIMENT = "omni_emotion_video"
DROPPED_PARTS = (
    "encoders.face",
    "encoders.audio",
    "projectors.face",
    "projectors.audio",
    "fusions.frames_video",
    "fusions.frames_face",
    "fusions.join",
)
"""Parts of Omni-Emotion that LLaVA-OneVision does not have."""

RELEASED_TOWERS = {"siglip-so400m-patch14-384": "7b", "siglip-base-patch16-224": "0_5b"}
"""Name of a tower -> our preset with its sizes, which the original config.json does not contain."""

NEWLINES = {"one_token": "one", "frame": "frame", "grid": "grid", "no_token": "none"}
"""``mm_newline_position`` -> the mode of our part."""

MERGE_TYPES = ("spatial_unpad", "flat", "spatial")
"""Values of ``mm_patch_merge_type`` that differ for videos: only ``unpad`` has newline tokens."""

NO_NEWLINE = "mm_patch_merge_type or mm_newline_position of config.json has no newline tokens"
"""Reason for which a newline token in the checkpoint is dropped."""

NUM_FRAMES = 32
"""``frames_upbound`` of its training."""

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_spatial_pool_mode": ("bilinear",),
    "mm_spatial_pool_stride": (2,),
    "mm_vision_select_feature": ("patch",),
    "projector_hidden_act": ("gelu",),
    "vision_feature_select_strategy": ("full",),
    "mm_newline_position": tuple(NEWLINES),
    "mm_patch_merge_type": MERGE_TYPES,
}
"""Optional field of config.json -> the values that our parts support; the first is the default."""


class Architecture(NamedTuple):
    """The parts that a config.json describes.

    Attributes:
        vision: arguments of the vision tower.
        text: configuration of the language model.
        num_blocks: blocks of the vision tower that are read.
        newline: mode of the newline tokens.
    """

    vision: dict[str, Any]
    text: Any
    num_blocks: int
    newline: str


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of LLaVA-OneVision's folder, and copy its tokenizer.

    Names are those of ``conf/model/omni_emotion.yaml``, which starts from this model; parts that it does not have are
    dropped there.

    Reference: LLaVA-NeXT ``siglip_encoder.py``, which deletes SigLIP's last block and reads the last state of the rest,
    whatever ``mm_vision_select_layer`` is; transformers keeps all blocks and reads ``vision_feature_layer``.

    Raises:
        ValueError: a file is missing, or config.json describes parts that we do not support.
    """
    checkpoint = open_checkpoint(request.path)
    official, file = read_config(checkpoint.folder), f"{checkpoint.folder}/config.json"
    architecture = _read_architecture(checkpoint, official, request.options)
    tiles = read_tiles(official, architecture.vision["image_size"], architecture.newline != "none", file)
    tokenizer = request.options.get("tokenizer")
    copy_tokenizer(resolve_path(tokenizer) if tokenizer else checkpoint.folder, folder / "tokenizer")
    config = _build_config(architecture, request)
    config.folder = str(folder)
    with torch.device("meta"):
        model: OmniModel = build(config.model)
    del config["folder"]
    tokens = model.count_tokens({"frames": int(config.frames)})["video"]
    report = keys.report_keys(checkpoint, architecture.num_blocks, bool(architecture.text.tie_word_embeddings))
    if architecture.newline == "none":
        report = drop_names(report, ["fusions.newline.newline"], NO_NEWLINE)
    return Conversion(
        (MappedCheckpoint(checkpoint, report),),
        parameter_shapes(model),
        config,
        official=official,
        hints={
            "encoders.video.*": "the vision tower must be in the checkpoint: LLaVA-OneVision has trained it",
            "fusions.newline.*": "image_newline is missing: was it trained with mm_patch_merge_type=flat?",
            "llm.model.lm_head.*": "config.json has no tie_word_embeddings: is a shard missing?",
        },
        notes=(
            f"{config.frames} frames become {tokens} video tokens; frames=8 makes fewer",
            f"Omni-Emotion starts from it: omnihuman train +experiment=omni_emotion_recognition base={request.out}",
            *filter(None, [tiles.note]),
        ),
        prompting="llava_onevision",
        prompting_options=tiles.describe(),
    )


def _read_architecture(checkpoint: Checkpoint, official: Mapping[str, Any], options: Mapping[str, Any]) -> Architecture:
    """Return the parts of a config.json in either layout, after a check of its fields."""
    file = f"{checkpoint.folder}/config.json"
    for field, values in SUPPORTED.items():
        value = official.get(field, values[0])
        if value not in values:
            raise ValueError(f"{file}: unsupported {field} {value!r}; expected {' or '.join(map(str, values))}.")
    layer: Any
    if "text_config" in official:
        vision = build_hub_config("siglip", official.get("vision_config") or {}, checkpoint.folder)
        text = build_hub_config("qwen2", official["text_config"], checkpoint.folder)
        sizes = {key: getattr(vision, key) for key in TOWER_SIZES["siglip"]}
        layer = official.get("vision_feature_layer", -1)
        if not isinstance(layer, int):
            raise ValueError(f"{file}: vision_feature_layer is {layer}; expected one layer.")
    else:
        if not any("Qwen" in str(name) for name in official.get("architectures") or ()):
            raise ValueError(
                f"{file}: architectures is {official.get('architectures')}, LLaVA-OneVision's is "
                "LlavaQwenForCausalLM: is it another LLaVA?"
            )
        text = build_hub_config("qwen2", {**official, "model_type": "qwen2"}, checkpoint.folder)
        sizes = _read_tower_sizes(checkpoint, official, options)
        layer = -2
    return Architecture(
        {**sizes, "select_layer": layer},
        text,
        count_blocks(layer, sizes["num_hidden_layers"]),
        _read_newline(official),
    )


def _read_newline(official: Mapping[str, Any]) -> str:
    """Return the mode of the newline tokens of videos.

    Reference: LLaVA-NeXT ``llava_arch.py``, ``prepare_inputs_labels_for_multimodal``; ``mm_patch_merge_type`` is absent
    in the layout of transformers, whose videos have one newline.
    """
    merge_type = official.get("mm_patch_merge_type", MERGE_TYPES[0])
    position = str(official.get("mm_newline_position", "one_token"))
    has_newline = "unpad" in merge_type
    if not has_newline and position in ("frame", "grid") and merge_type != "flat":
        raise ValueError(
            f"config.json: mm_newline_position={position} needs newline tokens, which "
            f"mm_patch_merge_type={merge_type} does not have: is it the configuration of this checkpoint?"
        )
    return NEWLINES[position] if has_newline else "none"


def _read_tower_sizes(
    checkpoint: Checkpoint, official: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the sizes of the complete tower, which the original layout leaves to the tower's own configuration."""
    name = str(options.get("vision_tower") or official.get("mm_vision_tower"))
    folder = find_folder(name, checkpoint.folder)
    preset = RELEASED_TOWERS.get(name.rpartition("/")[2])
    if folder is None and preset is not None:
        released = compose_part("encoder", "siglip", size=preset)
        return {key: released[key] for key in TOWER_SIZES["siglip"]}
    try:
        folder = folder or resolve_path(name)
    except ValueError as error:
        raise ValueError(
            f"{error} It is the vision tower of {checkpoint.folder}/config.json (mm_vision_tower), whose own "
            "config.json has its sizes: give vision_tower=<folder or hub id>. Known towers: "
            f"{', '.join(RELEASED_TOWERS)}."
        ) from error
    config = build_hub_config("siglip", read_config(folder), folder)
    projector = checkpoint.headers.get("model.mm_projector.0.weight")
    if projector is not None and projector.shape[-1] != config.hidden_size:
        fitting = TOWERS_BY_WIDTH["siglip"].get(projector.shape[-1], "<the one that it was trained with>")
        raise ValueError(
            f"the vision tower {name} is {config.hidden_size} wide, mm_projector of {checkpoint.path} expects "
            f"{projector.shape[-1]}: give vision_tower={fitting}."
        )
    return {key: getattr(config, key) for key in TOWER_SIZES["siglip"]}


def _build_config(architecture: Architecture, request: Request) -> DictConfig:
    no_weights = {"weights": None}  # of dropped parts: a config without `weights` is loaded without initialization
    changes = {
        "name": request.out.name,
        "next": None,
        "stages": list_stages(EXPERIMENT),
        "frames": int(request.options.get("frames") or NUM_FRAMES),
        "model": {
            "encoders": {
                "video": {**architecture.vision, "weights": None},
                "face": no_weights,
                "audio": no_weights,
            },
            "fusions": {"newline": {"mode": architecture.newline}},
            "llm": {
                "weights": None,
                "tokenizer": "${folder}/tokenizer",
                "architecture": select_architecture(architecture.text),
            },
            "drop": list(DROPPED_PARTS),
        },
        "data": {"markers": False, "sampling": "ends", "views": ["video"]},
    }
    return change_experiment(EXPERIMENT, "7b", changes)
