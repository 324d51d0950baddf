"""A model folder -> HumanOmni's official layout, which their own inference script reads."""

import json
import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from omnihuman.build import build, compose_config, prune
from omnihuman.convert.humanomni import to_official
from omnihuman.data.chat import SYSTEM
from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import copy_tokenizer, parameters
from omnihuman.release.shards import Header, local, open_checkpoint
from omnihuman.release.source.humanomni_parts import FITTING, FORMS
from omnihuman.release.writing import LIMIT, write_sharded
from omnihuman.training.finished import load_model, read_config
from omnihuman.types import TEMPLATES

FREE = ("_target_", "_partial_", "grad_checkpointing")
"""What is compared elsewhere, or changes nothing."""

TOWERS = {"mm_vision_tower": ("video", "siglip"), "mm_audio_tower": ("audio", "whisper")}
"""Field of their config.json -> our encoder, and the word that their loader looks for in the tower's path."""

CHAT = (
    "{{% if messages[0]['role'] != 'system' %}}{system}{{% endif %}}{{% for message in messages %}}"
    "<|im_start|>{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
).format(system=TEMPLATES["chatml"].system.format(SYSTEM))
"""ChatML for a tokenizer that brings no template, as their script renders it."""

FIXED = ("projectors", "fusions", "early_fusions", "sources", "conditions")
"""Groups of a model whose arguments their code fixes; of an encoder it fixes the class, its tower says the sizes."""


def write_official(
    folder: Path,
    out: Path,
    *,
    vision_tower: str | None = None,
    audio_tower: str | None = None,
    dtype: str | None = None,
    limit: int = LIMIT,
) -> tuple[str, ...]:
    """Write a run or a converted folder as HumanOmni does: shards with their index, ``config.json``, the tokenizer.

    Zeros stand for what their code owns and never uses (BERT's pooler, the compressor's two Linears), so that nothing
    is missing. The towers are written under their trainer's names; their loader reads ``mm_vision_tower`` and
    ``mm_audio_tower`` in their place, and leaves keys that it does not know.

    Reference: HumanOmni ``humanomni_arch.py``, ``encoder.py`` (``delay_load``).

    Args:
        folder: of a finished run or a converted checkpoint.
        out: to make; it appears whole or not at all.
        vision_tower: their ``mm_vision_tower``; ``None`` is what the folder was converted or trained from.
        audio_tower: their ``mm_audio_tower``, likewise.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``None`` keeps each tensor's.
        limit: bytes of a shard.

    Returns:
        What the user should know.

    Raises:
        ValueError: ``out`` is there, or the model is none that their code could build; what differs is named.
    """
    if out.exists():
        raise ValueError(f"out={out} is there already: choose another.")
    config = read_config(folder)
    kind = _kind(config, folder)
    _check_towers(config, folder)
    model, headers, read = _tensors(folder, config)
    towers = {"mm_vision_tower": vision_tower, "mm_audio_tower": audio_tower}
    official = _config(folder, config, model, kind, towers)
    zeros = _zeros(kind, model)
    if dtype is not None:
        headers = {key: header._replace(dtype=getattr(torch, dtype)) for key, header in headers.items()}
        official["torch_dtype"] = dtype
    narrow = min((header.dtype for header in headers.values()), key=lambda each: each.itemsize)
    headers |= {key: Header(shape, narrow) for key, shape in zeros.items()}
    staging = out.with_name(f"{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write_sharded(staging, headers, lambda key: torch.zeros(zeros[key]) if key in zeros else read(key), limit)
        (staging / "config.json").write_text(json.dumps(official, indent=2) + "\n")
        copy_tokenizer(local(str(config.model.llm.tokenizer)), staging)
        _slow_tokenizer(staging)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return _notes(config, official, zeros)


def _kind(config: DictConfig, folder: Path) -> str:
    """The ``mm_projector_type`` whose code builds this model.

    Raises:
        ValueError: neither does; the differences to the nearer one are listed.
    """
    ours, closest = _fixed(config.model), dict[str, list[str]]()
    for kind, size in FORMS.items():
        theirs = _fixed(compose_config(["+experiment=humanomni_stage3", f"size={size}"]).model)
        if "encoders.audio" not in ours:
            theirs = {key: value for key, value in theirs.items() if ".audio" not in key}
        unlike = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        closest[kind] = [
            f"{key} is {ours.get(key, 'absent')}, theirs {theirs.get(key, 'absent')}"
            for key in sorted(unlike)
            if key.rpartition(".")[0] not in unlike  # of another part its arguments say nothing
        ]
    kind = min(closest, key=lambda each: len(closest[each]))
    if closest[kind]:
        listed = "; ".join(closest[kind][:6])
        raise ValueError(
            f"{folder} is no model of HumanOmni's own code, which fixes what its config.json cannot say. Beside its "
            f"{kind}: {listed}. Export it in the form of Hugging Face instead."
        )
    return kind


def _fixed(model: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(model, resolve=True)
    node = prune(plain)
    found: dict[str, Any] = {f"encoders.{name}": part["_target_"] for name, part in node["encoders"].items()}
    for group in FIXED:
        for name, part in (node.get(group) or {}).items():
            arguments = part if isinstance(part, Mapping) else {"_target_": part}
            found[f"{group}.{name}"] = arguments["_target_"]
            found |= {f"{group}.{name}.{key}": value for key, value in arguments.items() if key not in FREE}
    return found


def _check_towers(config: DictConfig, folder: Path) -> None:
    """Their loader reads vision and audio from folders of their own: what was learned in them would be lost."""
    for pattern in config.get("trainable") or {}:
        for group in ("encoders.video", "encoders.audio"):
            if fnmatchcase(f"{group}.x", str(pattern)) or str(pattern).startswith(group):
                raise ValueError(
                    f"{folder} trained {group} ({pattern}), but HumanOmni's loader reads its towers from the folders "
                    "that config.json names, never from the checkpoint: export it in the form of Hugging Face instead."
                )


def _tensors(folder: Path, config: DictConfig) -> tuple[OmniModel, dict[str, Header], Callable[[str], Tensor]]:
    """The model, headers by official key, and what reads one: a file that has all, else the loaded model."""
    parts = [*config.model.encoders.values(), config.model.llm]
    if not any(part.get("weights") or part.get("lora") for part in parts):
        with torch.device("meta"):
            model: OmniModel = build(config.model)
        file = open_checkpoint(folder / "weights.safetensors")
        if parameters(model).keys() <= file.keys():
            names = [name for name in file if name in parameters(model)]
            held = {_official(name): name for name in names}
            return model, {key: file.headers[name] for key, name in held.items()}, lambda key: file[held[key]]
    _, model = load_model(folder, merge_lora=True)
    state = {_official(name): tensor for name, tensor in model.named_parameters()}
    headers = {key: Header(tuple(tensor.shape), tensor.dtype) for key, tensor in state.items()}
    return model, headers, lambda key: state[key]


def _official(name: str) -> str:
    found = to_official(name)
    assert found is not None, name  # _kind has compared the parts
    return found


def _zeros(kind: str, model: OmniModel) -> dict[str, tuple[int, ...]]:
    """What their code owns and never uses."""
    width, seen = (model.encoders[part].out_dim for part in ("instruction", "video"))
    assert isinstance(width, int) and isinstance(seen, int)
    unused: dict[str, tuple[int, ...]] = {
        "model.bert_model.pooler.dense.weight": (width, width),
        "model.bert_model.pooler.dense.bias": (width,),
    }
    if FORMS[kind] == "7b":
        for name in ("query", "key"):
            unused[f"model.feature_compressor.vlm_{name}_projector.weight"] = (256, seen)
            unused[f"model.feature_compressor.vlm_{name}_projector.bias"] = (256,)
    return unused


def _config(
    folder: Path, config: DictConfig, model: OmniModel, kind: str, towers: Mapping[str, str | None]
) -> dict[str, Any]:
    """Their config.json: as it was read, where the folder goes back to one, with what its parts are now."""
    read = _source(folder, config)
    llm, tokenizer = model.llm.model.config, model.llm.tokenizer
    fields = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings",
              "attention_dropout", "initializer_range", "use_cache", "use_sliding_window")  # fmt: skip
    made = {
        "architectures": ["HumanOmniQwen2ForCausalLM"], "model_type": "HumanOmni_qwen2", "torch_dtype": "float32",
        "bos_token_id": None, "eos_token_id": model.llm.end_id, "pad_token_id": tokenizer.pad_token_id,
        "mm_vision_select_feature": "patch", "tune_mm_mlp_adapter": False, "use_mm_proj": True,
        "tokenizer_padding_side": "right", "tokenizer_model_max_length": 2048,
    }  # fmt: skip
    now: dict[str, Any] = {name: getattr(llm, name) for name in fields} | {
        "rope_theta": (llm.rope_parameters or {}).get("rope_theta"),
        "mm_projector_type": kind,
        "num_frames": int(config.data.num_frames),
        "mm_use_x_start_end": bool(config.data.markers),
        "image_aspect_ratio": str(config.model.encoders.video.aspect),
        "mm_vision_select_layer": int(config.model.encoders.video.select_layer),
        "mm_hidden_size": model.encoders["video"].out_dim,
    }
    if "audio" in model.encoders:
        now |= {"mm_audio_projector_type": "mlp2x_gelu", "audio_hidden_size": model.encoders["audio"].out_dim}
    for key, (part, kind_of_tower) in TOWERS.items():
        if part in model.encoders:
            width = model.encoders[part].out_dim
            fits = FITTING[kind_of_tower].get(width) if isinstance(width, int) else None
            now[key] = towers[key] or read.get(key) or config.model.encoders[part].weights or fits
            if not now[key]:
                raise ValueError(f"nothing says which {key} to name: give {key[3:]}=<folder or hub id>.")
    return {**(read or made), **now}


def _source(folder: Path, config: DictConfig) -> dict[str, Any]:
    """The official config.json that a folder, or one that its run began with, was converted from."""
    begun = [Path(str(each.folder)) for each in config.get("init_from") or [] if each.get("folder")]
    for place in (folder, *begun):
        if (place / "source.json").is_file():
            said = json.loads((place / "source.json").read_text())
            given = {
                f"mm_{key}": name for key, name in said["options"].items() if key in ("vision_tower", "audio_tower")
            }
            return {**said["config"], **given}
    return {}


def _slow_tokenizer(folder: Path) -> None:
    """Their script asks transformers 4 for the slow tokenizer; what transformers 5 keeps elsewhere goes there."""
    if not (folder / "tokenizer.json").is_file():
        return
    said = json.loads((folder / "tokenizer.json").read_text())
    model, file = said["model"], folder / "tokenizer_config.json"
    if not (folder / "vocab.json").is_file():
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    read = json.loads(file.read_text()) if file.is_file() else {}
    config = dict(read)
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if not str(config.get("tokenizer_class")).startswith("Qwen2"):
        config["tokenizer_class"] = "Qwen2Tokenizer"
    added = {str(each["id"]): {key: each[key] for key in each if key != "id"} for each in said["added_tokens"]}
    template = folder / "chat_template.jinja"
    config.setdefault("chat_template", template.read_text() if template.is_file() else CHAT)
    config = {"added_tokens_decoder": added} | config
    if config != read:
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _notes(config: DictConfig, official: Mapping[str, Any], zeros: Mapping[str, Any]) -> tuple[str, ...]:
    said = [f"zeros for {len(zeros)} tensors that their code owns and never uses: {', '.join(sorted(zeros))}"]
    for key, (_, word) in TOWERS.items():
        if key in official:
            said.append(f"{key} is {official[key]}: their loader reads it there, where the path must contain {word!r}")
            if word not in str(official[key]) or "clip" in str(official[key]):
                said[-1] += f" and not 'clip', so they cannot read this one: give {key[3:]}="
    if FORMS[official["mm_projector_type"]] == "0_5b":
        said.append("the 0.5B form is read by R1-Omni's code; HumanOmni's own would compress the video tokens")
    audio = config.model.encoders.get("audio") or {}
    if "mm_audio_tower" in official and audio.get("keep") != "window":
        said.append("their code always makes 500 tokens of sound, this model was trained on the true length of a clip")
    if int(config.model.encoders.instruction.hidden_size) != 768:
        said.append("their code builds bert-base-uncased, 768 wide, this model reads a smaller BERT")
    return tuple(said)
