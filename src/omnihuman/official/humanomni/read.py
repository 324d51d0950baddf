"""Conversion of HumanOmni's official checkpoints; ``write_official`` is the way back."""

import re
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_config
from omnihuman.model.omni import OmniModel
from omnihuman.official.checkpoint import Checkpoint, resolve_path
from omnihuman.official.conversion import Conversion, MappedCheckpoint, Request, copy_tokenizer, parameter_shapes
from omnihuman.official.humanomni import keys as keys
from omnihuman.official.humanomni.checkpoint import (
    PRESETS,
    TOWER_OPTIONS,
    TOWER_PREFIXES,
    TOWER_SIZES,
    OfficialCheckpoint,
    build_hints,
    drop_names,
    open_official,
)
from omnihuman.official.humanomni.write import write_official as write_official
from omnihuman.official.keys import KeyReport
from omnihuman.official.prompting import read_system_text
from omnihuman.official.towers.read import save_bert_tokenizer
from omnihuman.training.chain import list_stages

ARCHITECTURE = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "max_position_embeddings",
    "rms_norm_eps",
)
"""Fields of the official config.json that are fields of Qwen2's."""

COMPRESSOR = {True: {"pool": 2, "every": 4}, False: {"pool": 1, "every": None}}
AUDIO_PARTS = ("encoders.audio", "projectors.audio")


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of an official folder (7B, -Video, -Audio, 0.5B, R1-Omni), and copy its tokenizers.

    ``mm_projector_type`` decides the preset, ``config.json`` and the towers' configurations decide the sizes, and
    the shapes of the checkpoint must agree with them. Without ``mm_audio_tower`` the model has no audio.

    Reference: HumanOmni ``humanomni_arch.py``, R1-Omni's fork of it (no compressor).

    Raises:
        ValueError: a file is missing, or two sources contradict each other.
    """
    sizes = {preset: read_released_sizes(preset) for preset in PRESETS.values()}
    official = open_official(request.path, request.options, sizes)
    config = build_config(official, request)
    tokenizer = request.options.get("tokenizer")
    copy_tokenizer(resolve_path(tokenizer) if tokenizer else official.main.folder, folder / "tokenizer")
    system, notes = read_system_text(folder / "tokenizer", config.model.llm.template)
    config.model.llm.template.system = system
    bert = official.towers["bert"].folder
    assert bert is not None  # open_official resolves it
    save_bert_tokenizer(bert, folder / "instruction_tokenizer", "instruction_encoder")
    config.folder = str(folder)
    with torch.device("meta"):
        model: OmniModel = build(config.model)
    del config["folder"]
    return Conversion(
        _map_checkpoints(official, request),
        parameter_shapes(model),
        config,
        official=official.config,
        hints=build_hints(official),
        notes=(*_notes(official, config, model), *notes),
        prompting=_choose_prompting(official, request),
    )


def _choose_prompting(official: OfficialCheckpoint, request: Request) -> str:
    """Return the name of the description: R1-Omni and its cold start, EMER-SFT, differ from HumanOmni-0.5B by name."""
    paths = (request.path, str(official.config.get("_name_or_path")))
    is_reasoning = any(re.search(r"r1.?omni|emer.?sft", Path(path).name, re.IGNORECASE) for path in paths)
    return "r1_omni" if is_reasoning else "humanomni"


def read_released_sizes(preset: str) -> dict[str, dict[str, Any]]:
    """Return the sizes of every tower as HumanOmni was released, by kind."""
    config = compose_config(["+experiment=humanomni_stage3", f"size={preset}", "random_weights=true"])
    sizes: dict[str, dict[str, Any]] = {}
    for kind, fields in TOWER_SIZES.items():
        encoder = config.model.encoders[_encoder_name(kind)]
        sizes[kind] = {key: int(encoder[key]) for key in fields}
    return sizes


def _encoder_name(kind: str) -> str:
    return TOWER_PREFIXES[kind].split(".")[1]


def build_config(official: OfficialCheckpoint, request: Request) -> DictConfig:
    """Return the config of the third stage with the checkpoint's sizes and data options.

    Raises:
        ValueError: the number of frames is unknown.
    """
    fields = official.config
    num_frames = request.options.get("frames") or fields.get("num_frames")
    if not num_frames:
        raise ValueError(
            f"{official.main.folder}/config.json has no num_frames, and the {official.preset} preset does not fix it "
            "(the official code falls back to 8, 7B was trained with 32, 7B-Video with 16): give frames=32."
        )
    views, last = ["VF"], "humanomni_stage1"
    if official.has_audio:
        views, last = ["VAF", "VF", "A"], "humanomni_stage3"
    changes = {
        "name": request.out.name,
        "frames": int(num_frames),
        "init_from": [],
        "stages": list_stages(last),
        "model": {
            "encoders": _encoder_config(official),
            "fusions": {
                "gate": {"hidden": official.shapes["model.bert_gate.0.weight"][0]},
                "compress": COMPRESSOR[official.has_compressor],
            },
            "llm": {"weights": None, "tokenizer": "${folder}/tokenizer", "architecture": _architecture(official)},
            "drop": [] if official.has_audio else list(AUDIO_PARTS),
        },
        "data": {
            "markers": bool(fields.get("mm_use_x_start_end", True)),
            "separator": "\n\n\n",
            "supervise_newline": True,
            "missing": "fill",
            "views": views,
        },
        "validation": {"views": views},
    }
    config = compose_config(["+experiment=humanomni_stage3", f"size={official.preset}"])
    OmegaConf.set_struct(config, False)
    merged = OmegaConf.merge(config, changes)
    assert isinstance(merged, DictConfig)
    return merged


def _encoder_config(official: OfficialCheckpoint) -> dict[str, Any]:
    fields = official.config
    aspect = "pad" if fields.get("image_aspect_ratio", "pad") == "pad" else "squash"
    encoders: dict[str, Any] = {
        "video": {"select_layer": int(fields.get("mm_vision_select_layer", -2)), "aspect": aspect},
        "audio": {"weights": None, "window_seconds": 30.0, "keep": "window"},
        "instruction": {"tokenizer": "${folder}/instruction_tokenizer"},
    }
    for kind, tower in official.towers.items():
        encoders[_encoder_name(kind)] |= {"weights": None, **tower.sizes}
    return encoders


def _architecture(official: OfficialCheckpoint) -> dict[str, Any]:
    fields = official.config
    if fields.get("rope_scaling"):
        raise ValueError(
            f"{official.main.folder}/config.json has rope_scaling, which no released HumanOmni has: remove it."
        )
    rope = {
        "rope_type": "default",
        "rope_theta": fields.get("rope_theta", 1e6),
        **(fields.get("rope_parameters") or {}),
    }
    sizes = {key: fields[key] for key in ARCHITECTURE if key in fields}
    return {
        **sizes,
        "model_type": "qwen2",
        "rope_parameters": rope,
        "tie_word_embeddings": official.is_tied,
    }


def _notes(official: OfficialCheckpoint, config: DictConfig, model: OmniModel) -> tuple[str, ...]:
    tokens = model.count_tokens({"frames": int(config.frames), "waveform": 480_000})
    notes = [f"{config.frames} frames become {tokens['video']} video tokens, 30 s of audio {tokens['audio']} tokens"]
    if not official.has_audio:
        notes.append("config.json names no mm_audio_tower: the model has no audio (audio_projector= adds it)")
    options = []
    for kind, tower in official.towers.items():
        if kind != "bert" and tower.checkpoint is None:
            options.append(f"{TOWER_OPTIONS[kind]}=")
    if options:
        notes.append(
            "towers are the checkpoint's own; the official loader reads those that config.json names, as "
            f"{' and '.join(options)} do"
        )
    if len({header.dtype for header in official.main.headers.values()}) > 1:
        notes.append("the checkpoint mixes dtypes; each tensor keeps its own, dtype=bfloat16 converts them to one")
    return tuple(notes)


def _map_checkpoints(official: OfficialCheckpoint, request: Request) -> tuple[MappedCheckpoint, ...]:
    """Return the source of every tensor: a tower's folder and a named adapter override the checkpoint."""
    report = keys.report_keys(official.main, official.num_blocks, official.is_tied)
    towers = []
    for kind, tower in official.towers.items():
        if tower.checkpoint is not None:
            num_blocks = official.num_blocks if kind == "siglip" else None
            towers.append(
                MappedCheckpoint(tower.checkpoint, keys.report_tower_keys(tower.checkpoint, kind, num_blocks))
            )
            report = drop_names(report, [TOWER_PREFIXES[kind]], f"read from {tower.name} in its place")
    adapters = []
    for part, checkpoint in official.adapters.items():
        adapter = keys.report_adapter_keys(checkpoint, part)
        is_option = part == "audio_projector" and bool(request.options.get(part))
        if is_option:
            report = drop_names(report, list(adapter.names.values()), f"read from {checkpoint.path.name} in its place")
        else:
            adapter = _drop_duplicates(official.main, report, checkpoint, adapter, part)
        adapters.append(MappedCheckpoint(checkpoint, adapter))
    if not official.has_audio:
        report = drop_names(report, AUDIO_PARTS, "config.json names no mm_audio_tower")
    return (MappedCheckpoint(official.main, report), *adapters, *towers)


def _drop_duplicates(
    main: Checkpoint, report: KeyReport, checkpoint: Checkpoint, adapter: KeyReport, part: str
) -> KeyReport:
    """Return an adapter's report without the tensors that the main checkpoint has as well.

    Raises:
        ValueError: one of these tensors differs.
    """
    main_keys = {name: key for key, name in report.names.items()}
    duplicates = {key: main_keys[name] for key, name in adapter.names.items() if name in main_keys}
    for key, main_key in duplicates.items():
        if not torch.equal(checkpoint[key], main[main_key]):
            raise ValueError(
                f"{checkpoint.path} and {main.path} both have {part}, and {key} differs: choose with "
                f"audio_projector=<file>, or move {checkpoint.path.name} away."
            )
    if not duplicates:
        return adapter
    return drop_names(adapter, list(adapter.names.values()), "the same as in the checkpoint")
