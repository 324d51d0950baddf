"""Export of a model folder in HumanOmni's official layout, which the official inference script reads."""

import json
import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from omnihuman.build import build, compose_config, compose_part, prune
from omnihuman.model.omni import OmniModel
from omnihuman.official.checkpoint import open_checkpoint, resolve_path
from omnihuman.official.conversion import copy_tokenizer, parameter_shapes
from omnihuman.official.humanomni.checkpoint import PRESETS, TOWERS_BY_WIDTH
from omnihuman.official.humanomni.keys import map_to_official
from omnihuman.template import parse_template
from omnihuman.training.model_folder import load_model
from omnihuman.training.run_search import read_config
from omnihuman.training.safetensors_writer import MAX_SHARD_SIZE, Header, write_sharded

_TRAINING_OF_GATE = ("balance", "warm_start", "warm_start_weight", "warm_start_steps")

UNCOMPARED = ("_target_", "_partial_", "grad_checkpointing", *_TRAINING_OF_GATE)
"""Arguments that are compared elsewhere, or that do not change the output."""

TOWERS = {"mm_vision_tower": ("video", "siglip"), "mm_audio_tower": ("audio", "whisper")}
"""Field of the official config.json -> our encoder, and the word that the official loader expects in the path."""

CHAT = (
    "{% if messages[0]['role'] != 'system' %}SYSTEM{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML for a tokenizer without a template, as the official script renders it; ``SYSTEM`` is the system turn."""

FIXED = ("projectors", "fusions", "early_fusions", "projector_inputs", "conditions")
"""Groups of a model whose arguments the official code fixes. Of an encoder it fixes the class only."""

ARCHITECTURE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "tie_word_embeddings",
    "attention_dropout",
    "initializer_range",
    "use_cache",
    "use_sliding_window",
)
"""Fields of the language model's configuration that config.json has as well."""


def write_official(
    folder: Path,
    out: Path,
    *,
    vision_tower: str | None = None,
    audio_tower: str | None = None,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
) -> tuple[str, ...]:
    """Write a model folder in HumanOmni's layout: shards with their index, ``config.json``, the tokenizer.

    Parameters that the official code has but never uses (BERT's pooler, the compressor's two Linears) are written as
    zeros, so that no key is missing. The towers are written under their training names; the official loader reads
    ``mm_vision_tower`` and ``mm_audio_tower`` in their place, and ignores unknown keys. Returns notes for the user.

    Reference: HumanOmni ``humanomni_arch.py``, ``encoder.py`` (``delay_load``).

    Args:
        folder: of a run or a converted checkpoint.
        out: folder to create; it is created complete or not at all.
        vision_tower: the official ``mm_vision_tower``; ``None`` is the tower that the folder started from.
        audio_tower: the official ``mm_audio_tower``, likewise.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``None`` keeps the dtype of each tensor.
        max_shard_size: in bytes.

    Raises:
        ValueError: ``out`` exists, or the official code cannot build the model; the differences are listed.
    """
    if out.exists():
        raise ValueError(f"out={out} exists already: choose another.")
    config = read_config(folder)
    projector_type = _find_projector_type(config, folder)
    _check_towers(config, folder)
    model, headers, read = _open_tensors(folder, config)
    towers = {"mm_vision_tower": vision_tower, "mm_audio_tower": audio_tower}
    official = _build_config(folder, config, model, projector_type, towers)
    zeros = _unused_shapes(projector_type, model)
    if dtype is not None:
        headers = {key: header._replace(dtype=getattr(torch, dtype)) for key, header in headers.items()}
        official["torch_dtype"] = dtype
    narrowest = min((header.dtype for header in headers.values()), key=lambda dtype: dtype.itemsize)
    headers |= {key: Header(shape, narrowest) for key, shape in zeros.items()}

    def read_or_zeros(key: str) -> Tensor:
        return torch.zeros(zeros[key]) if key in zeros else read(key)

    staging = out.with_name(f"{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write_sharded(staging / "model.safetensors", headers, read_or_zeros, {"format": "pt"}, max_shard_size)
        (staging / "config.json").write_text(json.dumps(official, indent=2) + "\n")
        copy_tokenizer(resolve_path(str(config.model.llm.tokenizer)), staging)
        _add_slow_tokenizer(staging)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return _notes(config, official, zeros)


def _find_projector_type(config: DictConfig, folder: Path) -> str:
    """Return the ``mm_projector_type`` whose code builds this model.

    Raises:
        ValueError: no type does; the differences to the closest one are listed.
    """
    arguments = _fixed_arguments(config.model)
    differences: dict[str, list[str]] = {}
    for projector_type, size in PRESETS.items():
        official = _fixed_arguments(compose_config(["+experiment=humanomni_stage3", f"size={size}"]).model)
        if "encoders.audio" not in arguments:
            official = {key: value for key, value in official.items() if ".audio" not in key}
        differences[projector_type] = _list_differences(arguments, official)
    closest = min(differences, key=lambda name: len(differences[name]))
    if differences[closest]:
        listed = "; ".join(differences[closest][:6])
        raise ValueError(
            f"{folder} is not a model of HumanOmni's code, which fixes what its config.json does not contain. "
            f"Differences to {closest}: {listed}. Export it with format=huggingface instead."
        )
    return closest


def _list_differences(arguments: Mapping[str, Any], official: Mapping[str, Any]) -> list[str]:
    different = {key for key in arguments.keys() | official.keys() if arguments.get(key) != official.get(key)}
    lines = []
    for key in sorted(different):
        if key.rpartition(".")[0] in different:  # the class differs, so its arguments need no line
            continue
        lines.append(f"{key} is {arguments.get(key, 'absent')}, expected {official.get(key, 'absent')}")
    return lines


def _fixed_arguments(model: DictConfig) -> dict[str, Any]:
    """Return the classes and arguments that the official code fixes, by dotted key."""
    plain: Any = OmegaConf.to_container(model, resolve=True)
    node = prune(plain)
    fixed: dict[str, Any] = {f"encoders.{name}": part["_target_"] for name, part in node["encoders"].items()}
    for group in FIXED:
        for name, part in (node.get(group) or {}).items():
            arguments = part if isinstance(part, Mapping) else {"_target_": part}
            fixed[f"{group}.{name}"] = arguments["_target_"]
            fixed |= {f"{group}.{name}.{key}": value for key, value in arguments.items() if key not in UNCOMPARED}
    return fixed


def _check_towers(config: DictConfig, folder: Path) -> None:
    """Check that the towers are untrained: the official loader would replace trained ones by the original folders."""
    for pattern in config.get("trainable") or {}:
        for group in ("encoders.video", "encoders.audio"):
            if fnmatchcase(f"{group}.x", str(pattern)) or str(pattern).startswith(group):
                raise ValueError(
                    f"{folder} trained {group} ({pattern}), but HumanOmni's loader reads its towers from the folders "
                    "in config.json, never from the checkpoint: export it with format=huggingface instead."
                )


def _open_tensors(folder: Path, config: DictConfig) -> tuple[OmniModel, dict[str, Header], Callable[[str], Tensor]]:
    """Return the model, the headers by official key, and a function that reads a tensor.

    A file that has all parameters is read tensor by tensor, and the model stays on the meta device. Otherwise some
    weights come from elsewhere, or LoRA must be merged, and the model is loaded.
    """
    parts = [*config.model.encoders.values(), config.model.llm]
    if not any(part.get("weights") or part.get("lora") for part in parts):
        with torch.device("meta"):
            model: OmniModel = build(config.model)
        expected = parameter_shapes(model).keys()
        file = open_checkpoint(folder / "weights.safetensors")
        if expected <= file.keys():
            names = {_official_key(name): name for name in file if name in expected}
            return model, {key: file.headers[name] for key, name in names.items()}, lambda key: file[names[key]]
    _, model = load_model(folder, merge_lora=True)
    state = {_official_key(name): tensor for name, tensor in model.named_parameters()}
    headers = {key: Header(tuple(tensor.shape), tensor.dtype) for key, tensor in state.items()}
    return model, headers, lambda key: state[key]


def _official_key(name: str) -> str:
    key = map_to_official(name)
    assert key is not None, name  # _find_projector_type has compared the parts
    return key


def _unused_shapes(projector_type: str, model: OmniModel) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters that the official code has but never uses, by official key."""
    text_dim, vision_dim = model.encoders["instruction"].out_dim, model.encoders["video"].out_dim
    assert isinstance(text_dim, int) and isinstance(vision_dim, int)
    unused: dict[str, tuple[int, ...]] = {
        "model.bert_model.pooler.dense.weight": (text_dim, text_dim),
        "model.bert_model.pooler.dense.bias": (text_dim,),
    }
    if PRESETS[projector_type] == "7b":
        for name in ("query", "key"):
            unused[f"model.feature_compressor.vlm_{name}_projector.weight"] = (256, vision_dim)
            unused[f"model.feature_compressor.vlm_{name}_projector.bias"] = (256,)
    return unused


def _build_config(
    folder: Path, config: DictConfig, model: OmniModel, projector_type: str, towers: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the official config.json: the original one if the folder has one, updated with the current parts."""
    original = _read_original(folder, config)
    llm = model.llm.model.config
    fields: dict[str, Any] = dict(original or _default_fields(model))
    fields |= {name: getattr(llm, name) for name in ARCHITECTURE}
    fields |= {
        "rope_theta": (llm.rope_parameters or {}).get("rope_theta"),
        "mm_projector_type": projector_type,
        "num_frames": int(config.data.num_frames),
        "mm_use_x_start_end": bool(config.data.markers),
        "image_aspect_ratio": str(config.model.encoders.video.aspect),
        "mm_vision_select_layer": int(config.model.encoders.video.select_layer),
        "mm_hidden_size": model.encoders["video"].out_dim,
    }
    if "audio" in model.encoders:
        fields |= {"mm_audio_projector_type": "mlp2x_gelu", "audio_hidden_size": model.encoders["audio"].out_dim}
    for key, (encoder, kind) in TOWERS.items():
        if encoder not in model.encoders:
            continue
        width = model.encoders[encoder].out_dim
        assert isinstance(width, int)
        fitting = TOWERS_BY_WIDTH[kind].get(width)
        fields[key] = towers[key] or original.get(key) or config.model.encoders[encoder].weights or fitting
        if not fields[key]:
            raise ValueError(f"{key} is unknown: give {key[3:]}=<folder or hub id>.")
    return fields


def _default_fields(model: OmniModel) -> dict[str, Any]:
    """Return the fields of a config.json that are the same in every HumanOmni."""
    return {
        "architectures": ["HumanOmniQwen2ForCausalLM"],
        "model_type": "HumanOmni_qwen2",
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": model.llm.end_id,
        "pad_token_id": model.llm.tokenizer.pad_token_id,
        "mm_vision_select_feature": "patch",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 2048,
    }


def _read_original(folder: Path, config: DictConfig) -> dict[str, Any]:
    """Return the official config.json of the checkpoint that the folder or a parent run was converted from."""
    parents = [Path(str(parent.folder)) for parent in config.get("init_from") or [] if parent.get("folder")]
    for path in (folder, *parents):
        if not (path / "official.json").is_file():
            continue
        source = json.loads((path / "official.json").read_text())
        fields = dict(source["config"])
        for option in ("vision_tower", "audio_tower"):
            if option in source["options"]:
                fields[f"mm_{option}"] = source["options"][option]
        return fields
    return {}


def _add_slow_tokenizer(folder: Path) -> None:
    """Add the files of the slow tokenizer, which the official script requests from transformers 4."""
    if not (folder / "tokenizer.json").is_file():
        return
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    if not (folder / "vocab.json").is_file():
        model = tokenizer["model"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    file = folder / "tokenizer_config.json"
    original = json.loads(file.read_text()) if file.is_file() else {}
    config = _slow_tokenizer_config(original, folder, tokenizer["added_tokens"])
    if config != original:
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _slow_tokenizer_config(
    original: Mapping[str, Any], folder: Path, added_tokens: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a tokenizer_config.json in the form of transformers 4."""
    config = dict(original)
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if not str(config.get("tokenizer_class")).startswith("Qwen2"):
        config["tokenizer_class"] = "Qwen2Tokenizer"
    file = folder / "chat_template.jinja"
    if file.is_file():
        config.setdefault("chat_template", file.read_text())
    else:
        chatml = parse_template(compose_part("llm/template", "chatml"))
        config.setdefault("chat_template", CHAT.replace("SYSTEM", chatml.open(chatml.system)))
    decoder: dict[str, Any] = {}
    for token in added_tokens:
        fields = dict(token)
        decoder[str(fields.pop("id"))] = fields
    return {"added_tokens_decoder": decoder, **config}


def _notes(config: DictConfig, official: Mapping[str, Any], zeros: Mapping[str, Any]) -> tuple[str, ...]:
    names = ", ".join(sorted(zeros))
    notes = [f"zeros for {len(zeros)} tensors that the official code has but never uses: {names}"]
    for key, (_, word) in TOWERS.items():
        if key not in official:
            continue
        tower = str(official[key])
        note = f"{key} is {tower}: the official loader reads the tower there, and the path must contain {word!r}"
        if word not in tower or "clip" in tower:
            note += f" and not 'clip', so this path fails: give {key[3:]}="
        notes.append(note)
    if PRESETS[official["mm_projector_type"]] == "0_5b":
        notes.append("R1-Omni's code reads the 0.5B form; HumanOmni's own code would compress the video tokens")
    audio = config.model.encoders.get("audio") or {}
    if "mm_audio_tower" in official and audio.get("keep") != "window":
        notes.append("the official code always uses 500 audio tokens, this model was trained with the length of a clip")
    if int(config.model.encoders.instruction.hidden_size) != 768:
        notes.append("the official code builds bert-base-uncased, 768 wide, this model has a smaller BERT")
    return tuple(notes)
