"""Tiny random checkpoints in their official layouts, with the official names."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.encoder.umt import UMT
from omnihuman.official.facexformer.keys import ENTRY, FILE
from omnihuman.projector.qformer import QFormer

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 42,
    "patch_size": 14,
}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1100,
    "max_position_embeddings": 512,
}
AUDIO: dict[str, Any] = {
    "num_mel_bins": 80,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "vocab_size": 60,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
}
BERT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 1100,
}
FACE: dict[str, Any] = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 3, "dim": 12}
UMT_L: dict[str, Any] = {
    "patch_size": 16,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
}
QFORMER: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 48,
    "num_queries": 4,
    "extra_queries": 6,
}

Layout = Literal["original", "transformers 4", "transformers 5"]

ORIGINAL_NAMES = {
    r"vision_tower\.": "model.vision_tower.vision_tower.vision_model.",
    r"multi_modal_projector\.linear_1": "model.mm_projector.0",
    r"multi_modal_projector\.linear_2": "model.mm_projector.2",
    "image_newline": "model.image_newline",
    r"language_model\.": "",
}
TRANSFORMERS_5_NAMES = {
    r"language_model\.lm_head\.": "lm_head.",
    r"language_model\.model\.": "model.language_model.",
    r"(?=vision_tower|multi_modal|image_newline)": "model.",
}
PINPOINTS = [[42, 42], [42, 84], [42, 126], [84, 42], [84, 84], [126, 42]]
"""Resolutions of images in tiles, in the layout of transformers: height and width."""

ORIGINAL_FIELDS = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava",
    "rope_theta": 1000000.0,
    "mm_hidden_size": 16,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": "(1x1),...,(6x6)",
    "mm_vision_tower": "google/siglip-tiny-patch14-42",
    "mm_spatial_pool_mode": "bilinear",
}


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter, also those that are 0 or 1 at first, so that a missing one changes the output."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return model.eval()


def write_tower(folder: Path, source: str, **changes: Any) -> Any:
    """Write a model of the hub with its heads, and return it; ``changes`` are fields of its config."""
    model: Any
    if source == "siglip":
        model = SiglipModel(SiglipConfig(vision_config=VISION | changes, text_config=VISION))
    elif source == "whisper":
        model = WhisperForConditionalGeneration(WhisperConfig(**AUDIO | changes))
    elif source == "bert":
        model = BertForPreTraining(BertConfig(**BERT | changes))
    elif source == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**TEXT | changes))
    else:
        model = MistralForCausalLM(MistralConfig(**TEXT | changes))
    randomize(model)
    model.save_pretrained(folder)
    return model


def rename_tensors(folder: Path, patterns: dict[str, str]) -> None:
    """Rename the tensors of a folder by pattern -> replacement; the first match counts."""
    state = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        name = key
        for pattern, replacement in patterns.items():
            if re.match(pattern, key):
                name = re.sub(pattern, replacement, key)
                break
        state[name] = tensor.clone()
    save_file(state, folder / "model.safetensors")


def write_llava_onevision(folder: Path, layout: Layout, tokenizer: str) -> Any:
    """Write transformers' LLaVA-OneVision in a layout, and return it."""
    config = LlavaOnevisionConfig(
        vision_config=VISION | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=TEXT | {"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        image_grid_pinpoints=PINPOINTS,
        image_token_index=1098,
        video_token_index=1099,
    )
    model: Any = randomize(LlavaOnevisionForConditionalGeneration(config))
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    if layout == "transformers 4":
        rename_tensors(folder, {r"vision_tower\.": "vision_tower.vision_model."})
    elif layout == "transformers 5":
        rename_tensors(folder, TRANSFORMERS_5_NAMES)
    else:
        rename_tensors(folder, ORIGINAL_NAMES)
        fields = model.config.text_config.to_dict() | ORIGINAL_FIELDS
        fields.pop("rope_parameters", None)
        (folder / "config.json").write_text(json.dumps(fields))
    return model


def write_facexformer(folder: Path) -> FaceXFormer:
    """Write FaceXFormer's file in the layout of its repository, with its heads, and return the encoder."""
    model = FaceXFormer(**FACE, image_size=32)
    randomize(model)
    state = {
        "backbone.1.weight": torch.ones(16),
        "backbone.1.bias": torch.ones(16),
        "pe_layer.positional_encoding_gaussian_matrix": torch.ones(2, 6),
        "face_decoder.iou_token.weight": torch.ones(1, 12),
    }
    for name, tensor in model.state_dict().items():
        kind, _, rest = name.partition(".")
        if kind == "features":
            key = f"backbone.0.{rest}"
        elif kind == "linears":
            stage, _, parameter = rest.partition(".")
            key = f"linear_c.{stage}.proj.{parameter}"
        else:
            key = f"linear_fuse.{rest}"
        state[key] = tensor
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    torch.save({ENTRY: state, "epoch": 3}, folder / FILE)
    return model


def vision_state(model: UMT, has_norm: bool) -> dict[str, Tensor]:
    """Return the vision encoder under the official names; VideoChat2's norm is outside of it."""
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("vision_layernorm."):
            state[f"vision_encoder.encoder.{name.replace('patch_embed.', 'patch_embed.proj.')}"] = tensor
        elif has_norm:
            state[name] = tensor
    return state


def write_umt(file: Path) -> UMT:
    """Write UMT's own multi-modal file: all blocks, a final norm and the heads."""
    model = UMT(**UMT_L, image_size=32, table_side=2, select_layer=-1)
    randomize(model)
    state = vision_state(model, has_norm=False) | {
        "vision_encoder.encoder.norm.weight": torch.ones(64),
        "vision_encoder.encoder.norm.bias": torch.ones(64),
        "vision_encoder.clip_decoder.0.head.weight": torch.ones(2),
        "temp": torch.ones(1),
        "text_encoder.bert.embeddings.word_embeddings.weight": torch.ones(2, 2),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state, "epoch": 1}, file)
    return model


def write_videochat2(file: Path, stage: Literal[2, 3]) -> tuple[UMT, QFormer]:
    """Write VideoChat2-Mistral's file of a stage, without a language model; that of stage 3 has LoRA."""
    vision = UMT(**UMT_L, image_size=32, table_side=2)
    qformer = QFormer(64, TEXT["hidden_size"], **QFORMER, text=stage == 3, vocab_size=TEXT["vocab_size"])
    randomize(vision)
    randomize(qformer, 1)
    state = vision_state(vision, has_norm=True)
    for name, tensor in qformer.state_dict().items():
        state[official_qformer_key(name)] = tensor
    if stage == 3:
        state |= make_lora()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state}, file)
    return vision, qformer


def official_qformer_key(name: str) -> str:
    names = {"queries": "query_tokens", "extra_queries": "extra_query_tokens"}
    if name in names:
        return names[name]
    if name.startswith("linears.0."):
        return name.replace("linears.0.", "mistral_proj.")
    key = name.replace("embeddings.layernorm.", "embeddings.LayerNorm.").replace(".attention.attention.", ".@.")
    key = key.replace("crossattention.attention.", "crossattention.self.").replace(".@.", ".attention.self.")
    key = key.replace("model.layernorm.", "model.embeddings.LayerNorm.")
    return f"qformer.bert.{key.removeprefix('model.')}"


def make_lora(rank: int = 4) -> dict[str, Tensor]:
    """LoRA on every Linear of the language model of ``TEXT``, as peft names it."""
    dim, inner, key_dim = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["hidden_size"] // 2
    sizes = {
        "self_attn.q_proj": (dim, dim),
        "self_attn.k_proj": (dim, key_dim),
        "self_attn.v_proj": (dim, key_dim),
        "self_attn.o_proj": (dim, dim),
        "mlp.gate_proj": (dim, inner),
        "mlp.up_proj": (dim, inner),
        "mlp.down_proj": (inner, dim),
    }
    linears = {}
    for layer in range(TEXT["num_hidden_layers"]):
        linears |= {f"model.layers.{layer}.{name}": size for name, size in sizes.items()}
    linears["lm_head"] = (dim, TEXT["vocab_size"])
    random = torch.Generator().manual_seed(2)
    state = {}
    for name, (inputs, outputs) in linears.items():
        base = f"mistral_model.base_model.model.{name}"
        state[f"{base}.lora_A.default.weight"] = torch.randn(rank, inputs, generator=random) * 0.2
        state[f"{base}.lora_B.default.weight"] = torch.randn(outputs, rank, generator=random) * 0.2
    return state


def write_mistral_tokenizer(source: str, folder: Path) -> None:
    """Write a tokenizer with the special tokens of Mistral's template besides its own."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
    tokenizer.save_pretrained(folder)
