"""LLaVA-OneVision in either layout -> the plan of a model folder: Omni-Emotion's video path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_config, compose_part
from omnihuman.convert import llava_onevision as names
from omnihuman.encoder.base import blocks_read
from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Piece, Plan, Request, copy_tokenizer, parameters
from omnihuman.release.shards import Checkpoint, local, open_checkpoint, read_config
from omnihuman.release.source.humanomni_parts import FITTING, SIZES
from omnihuman.release.source.parts import architecture, hub_config

EXPERIMENT = "omni_emotion_video"
LACKS = ("encoders.face", "encoders.audio", "projectors.face", "projectors.audio", "fusions.frames_video",
         "fusions.frames_face", "fusions.join")  # fmt: skip
"""Parts of Omni-Emotion that LLaVA-OneVision does not have."""

RELEASED = {"siglip-so400m-patch14-384": "7b", "siglip-base-patch16-224": "0_5b"}
"""Name of a tower -> our preset with its sizes, which the original config.json leaves to the tower's own."""

NEWLINES = {"one_token": "one", "frame": "frame", "grid": "grid"}
"""``mm_newline_position`` -> the mode of our part."""

FRAMES = 32
"""``frames_upbound`` of its training."""

KNOWN: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_spatial_pool_mode": ("bilinear",),
    "mm_spatial_pool_stride": (2,),
    "mm_vision_select_feature": ("patch",),
    "projector_hidden_act": ("gelu",),
    "vision_feature_select_strategy": ("full",),
    "mm_newline_position": tuple(NEWLINES),
}
"""Field of config.json, where it is there -> the values that our parts can be."""


class Said(NamedTuple):
    """What a config.json says of the parts.

    Attributes:
        vision: arguments of the vision tower.
        text: configuration of the language model.
        blocks: how many blocks of the vision tower are read.
        newline: where newlines go.
    """

    vision: dict[str, Any]
    text: Any
    blocks: int
    newline: str


def plan(request: Request, folder: Path) -> Plan:
    """What becomes of LLaVA-OneVision's folder; its tokenizer is put into ``folder``.

    Names are those of ``conf/model/omni_emotion.yaml``, which starts from this model; what it lacks is dropped there.

    Reference: LLaVA-NeXT ``siglip_encoder.py``, which deletes SigLIP's last block and reads what is then the last
    state, whatever ``mm_vision_select_layer`` says; transformers keeps the others and reads ``vision_feature_layer``.
    Differs from both in stills, which are one frame here and not tiles (``anyres``).

    Raises:
        ValueError: something is missing, or config.json asks for what our parts are not.
    """
    found = open_checkpoint(request.path)
    official = read_config(found.folder)
    said = _said(found, official, request.options)
    given = request.options.get("tokenizer")
    copy_tokenizer(local(given) if given else found.folder, folder / "tokenizer")
    config = _config(said, request)
    config.folder = str(folder)
    with torch.device("meta"):
        model: OmniModel = build(config.model)
    del config["folder"]
    tokens = model.layouts({"frames": int(config.frames)})["video"]
    return Plan(
        (Piece(found, names.report(found, said.blocks, bool(said.text.tie_word_embeddings))),),
        parameters(model),
        config,
        official=official,
        cures={
            "encoders.video.*": "the vision tower must be in the checkpoint: LLaVA-OneVision has trained it",
            "fusions.newline.*": "its image_newline is not there: was it trained with mm_patch_merge_type=flat?",
            "llm.model.lm_head.*": "config.json does not say tie_word_embeddings: is a shard missing?",
        },
        notes=(
            f"{config.frames} frames become {tokens} tokens of video; frames=8 asks for fewer",
            f"a stage starts from it with base={request.out}; with faces as well: "
            "model.drop=[encoders.audio,projectors.audio] model.encoders.face.weights=kartiknarayan/facexformer",
        ),
    )


def _said(found: Checkpoint, official: Mapping[str, Any], options: Mapping[str, Any]) -> Said:
    """The fields of either layout, checked."""
    for field, values in KNOWN.items():
        if (value := official.get(field, values[0])) not in values:
            listed = ", ".join(map(str, values))
            raise ValueError(f"{found.folder}/config.json: {field} is {value!r}, ours can be {listed} only.")
    if "text_config" in official:
        vision = hub_config("siglip", official.get("vision_config") or {}, found.folder)
        text = hub_config("qwen2", official["text_config"], found.folder)
        sizes, layer = {key: getattr(vision, key) for key in SIZES["siglip"]}, official.get("vision_feature_layer", -1)
        if not isinstance(layer, int):
            raise ValueError(f"{found.folder}/config.json: vision_feature_layer is {layer}, ours reads one state only.")
    else:
        if not any("Qwen" in str(name) for name in official.get("architectures") or ()):
            raise ValueError(
                f"{found.folder}/config.json: architectures is {official.get('architectures')}, LLaVA-OneVision's is "
                "LlavaQwenForCausalLM: is it another LLaVA?"
            )
        text = hub_config("qwen2", {**official, "model_type": "qwen2"}, found.folder)
        sizes, layer = _tower(found, official, options), -2
    return Said(
        sizes | {"select_layer": layer},
        text,
        blocks_read(layer, sizes["num_hidden_layers"]),
        NEWLINES[str(official.get("mm_newline_position", "one_token"))],
    )


def _tower(found: Checkpoint, official: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of the whole tower, which the original layout leaves to the tower's own configuration."""
    name = str(options.get("vision_tower") or official.get("mm_vision_tower"))
    place = next((path for path in (found.folder / name, Path(name).expanduser()) if path.is_dir()), None)
    if place is None and (preset := RELEASED.get(name.rpartition("/")[2])):
        released = compose_part("encoder", f"siglip/{preset}")
        return {key: released[key] for key in SIZES["siglip"]}
    try:
        place = place or local(name)
    except ValueError as error:
        raise ValueError(
            f"{error} It is the vision tower of {found.folder}/config.json (mm_vision_tower), whose own config.json "
            f"says its sizes: say where it is with vision_tower=<folder or hub id>. Known: {', '.join(RELEASED)}."
        ) from error
    config = hub_config("siglip", read_config(place), place)
    first = found.headers.get("model.mm_projector.0.weight")
    if first is not None and first.shape[-1] != config.hidden_size:
        fits = FITTING["siglip"].get(first.shape[-1], "the one that it was trained with")
        raise ValueError(
            f"the vision tower {name} is {config.hidden_size} wide, mm_projector of {found.path} reads "
            f"{first.shape[-1]}: give vision_tower={fits}."
        )
    return {key: getattr(config, key) for key in SIZES["siglip"]}


def _config(said: Said, request: Request) -> DictConfig:
    unread = {"weights": None}  # of parts that are dropped: a config without `weights` is read without drawing any
    changes = {
        "name": request.out.name,
        "next": None,
        "frames": int(request.options.get("frames") or FRAMES),
        "model": {
            "encoders": {"video": {**said.vision, "weights": None}, "face": unread, "audio": unread},
            "fusions": {"newline": {"mode": said.newline}},
            "llm": {"weights": None, "tokenizer": "${folder}/tokenizer", "architecture": architecture(said.text)},
            "drop": list(LACKS),
        },
        "data": {"markers": False, "views": ["video"]},
    }
    config = OmegaConf.merge(compose_config([f"+experiment={EXPERIMENT}", "size=7b"]), {})
    OmegaConf.set_struct(config, False)
    merged = OmegaConf.merge(config, changes)
    assert isinstance(merged, DictConfig)
    return merged
