"""HumanOmni's official checkpoints -> the plan of a model folder; ``write_official`` is the way back."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_config
from omnihuman.convert import humanomni as names
from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Piece, Plan, Request, copy_tokenizer, parameters
from omnihuman.release.shards import local
from omnihuman.release.source.humanomni_out import write_official as write_official
from omnihuman.release.source.humanomni_parts import FORMS, OPTIONS, PREFIXES, SIZES, Found, cures, find, moved

ARCHITECTURE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "intermediate_size", "max_position_embeddings", "rms_norm_eps")  # fmt: skip
"""Fields of their config.json that are fields of Qwen2's."""

COMPRESSOR = {True: {"pool": 2, "every": 4}, False: {"pool": 1, "every": None}}
EARS = ("encoders.audio", "projectors.audio")


def plan(request: Request, folder: Path) -> Plan:
    """What becomes of an official folder (7B, -Video, -Audio, 0.5B, R1-Omni); its tokenizers are put into ``folder``.

    The form is what ``mm_projector_type`` says, sizes are what ``config.json`` and the towers' configurations say, and
    whatever the keys say as well is compared. Without ``mm_audio_tower`` the model has no ears.

    Reference: HumanOmni ``humanomni_arch.py``, R1-Omni's fork of it (no compressor).

    Raises:
        ValueError: something is missing, or two of these contradict each other.
    """
    found = find(request.path, request.options, {form: presets(form) for form in FORMS.values()})
    config = config_of(found, request)
    tokenizer = request.options.get("tokenizer")
    copy_tokenizer(local(tokenizer) if tokenizer else found.main.folder, folder / "tokenizer")
    _words(found, folder / "instruction_tokenizer")
    config.folder = str(folder)
    with torch.device("meta"):
        model: OmniModel = build(config.model)
    del config["folder"]
    tokens = model.layouts({"frames": int(config.frames), "waveform": 480_000})
    notes = [f"{config.frames} frames become {tokens['video']} tokens of video, 30 s {tokens['audio']} of sound"]
    if not found.hears:
        notes.append("config.json names no mm_audio_tower: a model without ears (audio_projector= gives it some)")
    own = [OPTIONS[kind] for kind, tower in found.towers.items() if kind != "bert" and tower.checkpoint is None]
    if own:
        options = " and ".join(f"{option}=" for option in own)
        notes.append(
            f"towers are the checkpoint's own; their loader reads those that config.json names, as {options} do"
        )
    if len({header.dtype for header in found.main.headers.values()}) > 1:
        notes.append("the checkpoint mixes dtypes; each tensor keeps its own, dtype=bfloat16 makes them one")
    return Plan(_pieces(found, request), parameters(model), config, {}, found.config, cures(found), tuple(notes))


def presets(form: str) -> dict[str, dict[str, Any]]:
    """Kind of a tower -> its sizes as HumanOmni was released with it."""
    encoders = compose_config(["+experiment=humanomni_stage3", f"size={form}", "random_weights=true"]).model.encoders
    kinds = {kind: encoders[prefix.split(".")[1]] for kind, prefix in PREFIXES.items()}
    return {kind: {key: int(encoder[key]) for key in SIZES[kind]} for kind, encoder in kinds.items()}


def config_of(found: Found, request: Request) -> DictConfig:
    """The config of the third stage with the checkpoint's sizes, and its data as it was trained.

    Raises:
        ValueError: nothing says how many frames it was trained with.
    """
    said = found.config
    frames = request.options.get("frames") or said.get("num_frames")
    if not frames:
        raise ValueError(
            f"{found.main.folder}/config.json has no num_frames, and the {found.form} form does not tell (their code "
            "falls back to 8, 7B was trained with 32, 7B-Video with 16): say frames=32."
        )
    encoders: dict[str, Any] = {
        "video": {"select_layer": int(said.get("mm_vision_select_layer", -2)),
                  "aspect": "pad" if said.get("image_aspect_ratio", "pad") == "pad" else "squash"},
        "audio": {"weights": None, "window_seconds": 30.0, "keep": "window"},
        "instruction": {"tokenizer": "${folder}/instruction_tokenizer"},
    }  # fmt: skip
    for kind, tower in found.towers.items():
        encoders[PREFIXES[kind].split(".")[1]] |= {"weights": None, **tower.sizes}
    rope = {"rope_type": "default", "rope_theta": said.get("rope_theta", 1e6)} | (said.get("rope_parameters") or {})
    if said.get("rope_scaling"):
        raise ValueError(
            f"{found.main.folder}/config.json has rope_scaling, which no released HumanOmni has: remove it."
        )
    architecture = {key: said[key] for key in ARCHITECTURE if key in said}
    tied = {"model_type": "qwen2", "rope_parameters": rope, "tie_word_embeddings": _tied(found)}
    modals = ["video_audio", "video", "audio"] if found.hears else ["video"]
    changes = {
        "name": request.out.name,
        "frames": int(frames),
        "init_from": [],
        "model": {
            "encoders": encoders,
            "fusions": {
                "gate": {"hidden": found.shapes["model.bert_gate.0.weight"][0]},
                "compress": COMPRESSOR[found.compresses],
            },
            "llm": {"weights": None, "tokenizer": "${folder}/tokenizer", "architecture": architecture | tied},
            "drop": [] if found.hears else list(EARS),
        },
        "data": {
            "markers": bool(said.get("mm_use_x_start_end", True)),
            "separator": "\n\n\n",
            "supervise_newline": True,
            "missing": "fill",
            "views": modals,
        },
        "answers": {"modals": modals},
    }
    config = compose_config(["+experiment=humanomni_stage3", f"size={found.form}"])
    OmegaConf.set_struct(config, False)
    merged = OmegaConf.merge(config, changes)
    assert isinstance(merged, DictConfig)
    return merged


def _tied(found: Found) -> bool:
    return bool(found.config.get("tie_word_embeddings", False))


def _pieces(found: Found, request: Request) -> tuple[Piece, ...]:
    """Where each tensor comes from: a tower's folder and a named adapter go before what the checkpoint has of them."""
    report = names.report(found.main, found.blocks, _tied(found))
    for kind, tower in found.towers.items():
        if tower.checkpoint is not None:
            report = moved(report, [PREFIXES[kind]], f"read from {tower.name} in its place")
    pieces = []
    for part, checkpoint in found.adapters.items():
        adapter = names.report_adapter(checkpoint, part)
        here = {name: key for key, name in report.taken.items()}
        both = {key: here[name] for key, name in adapter.taken.items() if name in here}
        if both and part == "audio_projector" and request.options.get(part):
            report = moved(report, list(adapter.taken.values()), f"read from {checkpoint.path.name} in its place")
        elif both:
            different = [key for key, other in both.items() if not torch.equal(checkpoint[key], found.main[other])]
            if different:
                raise ValueError(
                    f"{checkpoint.path} and {found.main.path} both hold {part}, and {different[0]} differs: say which "
                    f"with audio_projector=<file>, or move {checkpoint.path.name} away."
                )
            adapter = moved(adapter, list(adapter.taken.values()), "the same as in the checkpoint")
        pieces.append(Piece(checkpoint, adapter))
    for kind, tower in found.towers.items():
        if tower.checkpoint is not None:
            blocks = found.blocks if kind == "siglip" else None
            pieces.append(Piece(tower.checkpoint, names.report_tower(tower.checkpoint, kind, blocks)))
    if not found.hears:
        report = moved(report, EARS, "config.json names no mm_audio_tower")
    return (Piece(found.main, report), *pieces)


def _words(found: Found, folder: Path) -> None:
    """BERT's tokenizer, with the name of its class, which the released folder leaves to BERT's config.json."""
    from transformers import AutoTokenizer

    source = found.towers["bert"].folder
    try:
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source} holds no tokenizer ({str(error).splitlines()[0]}): give instruction_encoder=<bert-base-uncased>."
        ) from error
