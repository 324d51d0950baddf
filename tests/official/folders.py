"""Tiny random HumanOmni checkpoints in the released layout: official key names, config.json, tokenizer, towers."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertModel, SiglipConfig, SiglipVisionModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnihuman.official.conversion import Request, convert

HIDDEN, BRANCHES = 32, 3
GATE = 3584
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
AUDIO = {"num_mel_bins": 128, "d_model": 12, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
TEXT = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION_PREFIX = "model.vision_tower.vision_tower."
AUDIO_PREFIX = "model.audio_tower.audio_tower."
BERT_PREFIX = "model.bert_model."

State = dict[str, Tensor]


@dataclass(frozen=True)
class OfficialFolder:
    """An official folder and its content.

    Attributes:
        folder: of the model.
        siglip: folder of the vision tower, ``None`` if only the checkpoint has it; ``whisper`` likewise.
        bert: folder of BERT: tokenizer, config, weights.
        state: official names with tensors, of the checkpoint.
        config: as in ``config.json``.
    """

    folder: Path
    siglip: Path | None
    whisper: Path | None
    bert: Path
    state: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def options(self) -> dict[str, str]:
        """Options of ``python -m omnihuman.convert`` besides path and out."""
        return {"instruction_encoder": str(self.bert)}


class Towers(NamedTuple):
    """The tensors of the towers under the keys of the model's checkpoint."""

    vision: State
    audio: State
    bert: State


def write_official(
    root: Path,
    preset: str = "7b",
    *,
    layout: str = "shards",
    has_towers: bool = True,
    segment: str = "vision_model.",
    has_audio: bool = True,
    frames: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> OfficialFolder:
    """Write ``root/HumanOmni``, ``root/siglip``, ``root/whisper`` and ``root/bert`` with random weights.

    Args:
        root: an empty folder.
        preset: ``7b`` (all_in_one, depth 4, compressor, own head) or ``0_5b`` (all_in_one_small, depth 2, tied).
        layout: of the weight files: ``shards``, ``single``, ``bin`` or ``bin shards``.
        has_towers: the checkpoint has the towers, as the official trainer saves it; their folders always do.
        segment: of the vision tower's names, empty for transformers 5.
        has_audio: the model has an audio tower.
        frames: ``num_frames``.
        dtype: of the checkpoint.
        seed: of the weights.
    """
    folder = root / "HumanOmni"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    nano = Path(str(files("omnihuman"))) / "foundation" / "nano"
    shutil.copytree(nano / "bert", root / "bert", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    towers = write_towers(root, segment, preset, generator, dtype)
    values = towers.vision | towers.audio | towers.bert
    state = {}
    for key, tensor in make_state(preset, towers, has_towers, has_audio).items():
        value = values[key] if key in values else make_random(key, tensor, generator)
        state[key] = value.to(dtype).contiguous()
    write_files(folder, state, layout)
    write_tokenizer(nano / "llm", folder)
    config = make_config(preset, root, has_audio, frames)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    whisper = root / "whisper" if has_audio else None
    return OfficialFolder(folder, root / "siglip", whisper, root / "bert", state, config)


def convert_official(official: OfficialFolder, out: Path, **options: Any) -> Path:
    """Convert an official folder, and return the model folder."""
    return convert(Request("humanomni", str(official.folder), out, official.options | options))


def write_files(folder: Path, state: Mapping[str, Tensor], layout: str = "shards") -> None:
    """Write a checkpoint as one file, or as three shards with their index, in safetensors or as pickles."""
    if layout == "single":
        save_file(dict(state), folder / "model.safetensors", {"format": "pt"})
        return
    if layout == "bin":
        torch.save(dict(state), folder / "pytorch_model.bin")
        return
    is_pickle = layout == "bin shards"
    stem, suffix = ("pytorch_model", "bin") if is_pickle else ("model", "safetensors")
    keys = sorted(state)
    weight_map: dict[str, str] = {}
    for number in range(3):
        name = f"{stem}-{number + 1:05d}-of-00003.{suffix}"
        shard = {key: state[key] for key in keys[number * len(keys) // 3 : (number + 1) * len(keys) // 3]}
        if is_pickle:
            torch.save(shard, folder / name)
        else:
            save_file(shard, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def make_state(preset: str, towers: Towers, has_towers: bool, has_audio: bool) -> State:
    """Return tensors without values, in the order of their random values."""
    state = make_llm(preset) | make_projector(preset) | towers.bert
    state |= make_linear("model.bert_gate.0", TEXT["hidden_size"], GATE)
    state |= make_linear("model.bert_gate.2", GATE, BRANCHES)
    if preset == "7b":
        state |= make_linear("model.feature_compressor.vlm_query_projector", VISION["hidden_size"], 256)
        state |= make_linear("model.feature_compressor.vlm_key_projector", VISION["hidden_size"], 256)
    if has_audio:
        state |= make_linear("model.audio_projector.0", AUDIO["d_model"], HIDDEN)
        state |= make_linear("model.audio_projector.2", HIDDEN, HIDDEN)
    if has_towers:
        state |= towers.vision
    if has_towers and has_audio:
        state |= towers.audio
        state |= make_linear(f"{AUDIO_PREFIX}projector", AUDIO["d_model"], 256)
        state |= make_linear(f"{AUDIO_PREFIX}classifier", 256, 2)
    return state


def make_linear(key: str, inputs: int, outputs: int) -> State:
    return {f"{key}.weight": torch.empty(outputs, inputs), f"{key}.bias": torch.empty(outputs)}


def make_random(key: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return random values that keep signals near 1; norms are near the identity."""
    values = torch.randn(tensor.shape, generator=generator)
    if "norm" in key or ".bn." in key or "LayerNorm" in key:
        return values / 10 + key.endswith("weight")
    fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
    return values / fan_in**0.5


def make_llm(preset: str) -> State:
    vocabulary, inner, narrow = 1024, 48, HIDDEN // 2
    state = {"model.embed_tokens.weight": torch.empty(vocabulary, HIDDEN), "model.norm.weight": torch.empty(HIDDEN)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        for name, outputs in (("q", HIDDEN), ("k", narrow), ("v", narrow)):
            state |= make_linear(f"{prefix}.self_attn.{name}_proj", HIDDEN, outputs)
        state[f"{prefix}.self_attn.o_proj.weight"] = torch.empty(HIDDEN, HIDDEN)
        state[f"{prefix}.mlp.gate_proj.weight"] = torch.empty(inner, HIDDEN)
        state[f"{prefix}.mlp.up_proj.weight"] = torch.empty(inner, HIDDEN)
        state[f"{prefix}.mlp.down_proj.weight"] = torch.empty(HIDDEN, inner)
        state[f"{prefix}.input_layernorm.weight"] = torch.empty(HIDDEN)
        state[f"{prefix}.post_attention_layernorm.weight"] = torch.empty(HIDDEN)
    if preset != "0_5b":
        state["lm_head.weight"] = torch.empty(vocabulary, HIDDEN)
    return state


def make_projector(preset: str) -> State:
    """Reference: HumanOmni's 7B keys; the squeeze layer of a block has a quarter of its input's channels."""
    depth = 4 if preset == "7b" else 2
    state = make_linear("model.mm_projector.mlp_2xgelu_face.0", VISION["hidden_size"], HIDDEN)
    state |= make_linear("model.mm_projector.mlp_2xgelu_face.2", HIDDEN, HIDDEN)
    for branch in ("video", "body"):
        for stage in ("s1", "s2"):
            for block in range(1, depth + 1):
                is_first = (stage, block) == ("s1", 1)
                state |= make_block(f"model.mm_projector.{stage}_{branch}.b{block}", is_first)
        state[f"model.mm_projector.sampler_{branch}.0.weight"] = torch.empty(HIDDEN, HIDDEN, 2, 2, 2)
        state[f"model.mm_projector.sampler_{branch}.0.bias"] = torch.empty(HIDDEN)
        for layer in (0, 2):
            state |= make_linear(f"model.mm_projector.readout_{branch}.{layer}", HIDDEN, HIDDEN)
    return state


def make_block(prefix: str, is_first: bool) -> State:
    inputs = VISION["hidden_size"] if is_first else HIDDEN
    convolutions = {"conv1": (HIDDEN, inputs, 1, 1), "conv2": (HIDDEN, 1, 3, 3), "conv3": (HIDDEN, HIDDEN, 1, 1)}
    if is_first:
        convolutions["downsample"] = (HIDDEN, inputs, 1, 1)
    state = {f"{prefix}.{name}.conv.weight": torch.empty(shape) for name, shape in convolutions.items()}
    for name in convolutions:
        state[f"{prefix}.{name}.bn.weight"] = torch.empty(HIDDEN)
        state[f"{prefix}.{name}.bn.bias"] = torch.empty(HIDDEN)
    squeezed = round(inputs * 0.25)
    state[f"{prefix}.se.fc1.weight"] = torch.empty(squeezed, HIDDEN, 1, 1)
    state[f"{prefix}.se.fc1.bias"] = torch.empty(squeezed)
    state[f"{prefix}.se.fc2.weight"] = torch.empty(HIDDEN, squeezed, 1, 1)
    state[f"{prefix}.se.fc2.bias"] = torch.empty(HIDDEN)
    return state


def write_towers(root: Path, segment: str, preset: str, generator: torch.Generator, dtype: torch.dtype) -> Towers:
    """Write the folders of the towers as on the hub, and return their tensors as HumanOmni's trainer names them."""
    side = 42 if preset == "7b" else 56  # patches of 14: a grid of 3 x 3, and an even one
    vision_config = SiglipConfig(
        vision_config={**VISION, "image_size": side, "patch_size": 14},
        text_config={"hidden_size": 16, "num_hidden_layers": 1},
    )
    audio_config = WhisperConfig(**AUDIO, decoder_layers=1)
    bert_config = BertConfig(**TEXT, vocab_size=1024)
    models = SiglipVisionModel(vision_config.vision_config), WhisperEncoder(audio_config), BertModel(bert_config)
    vision, audio, bert = (draw_parameters(model, generator, dtype) for model in models)
    hub_vision = add_prefix(vision, "vision_model.") | {"logit_scale": torch.ones(1)}
    hub_bert = add_prefix(bert, "bert.") | {"cls.predictions.bias": torch.ones(1024)}
    write_tower(root / "siglip", vision_config, hub_vision)
    write_tower(root / "whisper", audio_config, add_prefix(audio, "model.encoder."))
    write_tower(root / "bert", bert_config, hub_bert)
    return Towers(
        add_prefix(vision, f"{VISION_PREFIX}{segment}"),
        add_prefix(audio, f"{AUDIO_PREFIX}encoder."),
        add_prefix(bert, BERT_PREFIX),
    )


def draw_parameters(model: torch.nn.Module, generator: torch.Generator, dtype: torch.dtype) -> State:
    return {name: make_random(name, parameter, generator).to(dtype) for name, parameter in model.named_parameters()}


def add_prefix(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def write_tower(folder: Path, config: Any, state: State) -> None:
    folder.mkdir(exist_ok=True)
    config.to_json_file(folder / "config.json")
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def write_tokenizer(source: Path, folder: Path) -> None:
    """Write the files of Qwen2.5: ``tokenizer.json``, and ``vocab.json`` with ``merges.txt`` for the slow one."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def make_config(preset: str, root: Path, has_audio: bool, frames: int | None) -> dict[str, Any]:
    default_frames = 4 if preset == "7b" else 2
    config: dict[str, Any] = {
        "architectures": ["HumanOmniQwen2ForCausalLM"],
        "model_type": "HumanOmni_qwen2",
        "hidden_act": "silu",
        "vocab_size": 1024,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": preset == "0_5b",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0",
        "use_sliding_window": False,
        "use_cache": True,
        "mm_vision_tower": str(root / "siglip"),
        "mm_hidden_size": VISION["hidden_size"],
        "mm_projector_type": "all_in_one" if preset == "7b" else "all_in_one_small",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "num_frames": frames or default_frames,
        "mm_use_x_start_end": True,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 2048,
    }
    if has_audio:
        config["mm_audio_tower"] = str(root / "whisper")
        config["mm_audio_projector_type"] = "mlp2x_gelu"
        config["audio_hidden_size"] = AUDIO["d_model"]
    return config
