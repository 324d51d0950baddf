"""Tiny random checkpoints at the true names of their official layouts."""

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

from omnihuman.convert.facexformer import ENTRY, FILE
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.encoder.umt import UMT
from omnihuman.projector.qformer import QFormer

VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 42,
    "patch_size": 14,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 1100, "max_position_embeddings": 512,
}  # fmt: skip
FACE: dict[str, Any] = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 3, "dim": 12}
UMT_L: dict[str, Any] = {
    "patch_size": 16, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 1,
}  # fmt: skip
QUERIES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 48, "num_queries": 4,
    "extra_queries": 6,
}  # fmt: skip

Layout = Literal["original", "transformers 4", "transformers 5"]


def shuffled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn, also those that begin as 0 or 1: one that is forgotten shows."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return model.eval()


def tower(folder: Path, source: str, **changed: Any) -> Any:
    """A model of the hub as its owner saves it, heads and all."""
    made: dict[str, Any] = {
        "siglip": lambda: SiglipModel(SiglipConfig(vision_config=VISION | changed, text_config=VISION)),
        "whisper": lambda: WhisperForConditionalGeneration(WhisperConfig(**{
            "num_mel_bins": 80, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 60,
            "encoder_ffn_dim": 24, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24,
            "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1} | changed)),
        "bert": lambda: BertForPreTraining(BertConfig(**{
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
            "vocab_size": 1100} | changed)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**TEXT | changed)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**TEXT | changed)),
    }  # fmt: skip
    model = shuffled(made[source]())
    model.save_pretrained(folder)
    return model


def renamed(folder: Path, patterns: dict[str, str], file: str = "model.safetensors") -> None:
    """Give the tensors of a folder other names: pattern -> replacement, the first match counts."""
    state = {}
    for key, tensor in load_file(folder / file).items():
        new = next((re.sub(old, to, key) for old, to in patterns.items() if re.match(old, key)), key)
        state[new] = tensor.clone()
    save_file(state, folder / file)


def llava_onevision(folder: Path, layout: Layout, tokenizer: str, **changed: Any) -> Any:
    """LLaVA-OneVision: transformers' model, saved in a layout; ``changed`` are fields of its vision config."""
    model = shuffled(
        LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=VISION | {"model_type": "siglip_vision_model", "vision_use_head": False} | changed,
                text_config=TEXT
                | {"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
                image_token_index=1098,
                video_token_index=1099,
            )
        )
    )
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    if layout == "transformers 4":
        renamed(folder, {r"vision_tower\.": "vision_tower.vision_model."})
    elif layout == "transformers 5":
        renamed(folder, {
            r"language_model\.lm_head\.": "lm_head.", r"language_model\.model\.": "model.language_model.",
            r"(?=vision_tower|multi_modal|image_newline)": "model."})  # fmt: skip
    else:
        renamed(folder, {
            r"vision_tower\.": "model.vision_tower.vision_tower.vision_model.",
            r"multi_modal_projector\.linear_1": "model.mm_projector.0",
            r"multi_modal_projector\.linear_2": "model.mm_projector.2",
            "image_newline": "model.image_newline", r"language_model\.": ""})  # fmt: skip
        said = model.config.text_config.to_dict() | {
            "architectures": ["LlavaQwenForCausalLM"], "model_type": "llava", "rope_theta": 1000000.0,
            "mm_hidden_size": 16, "mm_patch_merge_type": "spatial_unpad", "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "image_aspect_ratio": "anyres_max_9",
            "mm_vision_tower": "google/siglip-tiny-patch14-42", "mm_spatial_pool_mode": "bilinear",
        }  # fmt: skip
        said.pop("rope_parameters", None)
        (folder / "config.json").write_text(json.dumps(said))
    return model


def facexformer(folder: Path) -> FaceXFormer:
    """FaceXFormer's file in the layout of its repository, heads and all."""
    model = FaceXFormer(**FACE, image_size=32)
    shuffled(model)
    state = {"backbone.1.weight": torch.ones(16), "backbone.1.bias": torch.ones(16),
             "pe_layer.positional_encoding_gaussian_matrix": torch.ones(2, 6),
             "face_decoder.iou_token.weight": torch.ones(1, 12)}  # fmt: skip
    for name, tensor in model.state_dict().items():
        kind, _, rest = name.partition(".")
        stage, _, last = rest.partition(".")
        key = {"features": f"backbone.0.{rest}", "linears": f"linear_c.{stage}.proj.{last}"}
        state[key.get(kind, f"linear_fuse.{rest}")] = tensor
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    torch.save({ENTRY: state, "epoch": 3}, folder / FILE)
    return model


def _vision(model: UMT, prefix: str, norm: bool) -> dict[str, Tensor]:
    """The vision encoder's official names; the norm of VideoChat2 stands outside."""
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("vision_layernorm."):
            state[prefix + name.replace("patch_embed.", "patch_embed.proj.")] = tensor
        elif norm:
            state[name] = tensor
    return state


def umt(file: Path) -> UMT:
    """UMT's own multi-modal file: all blocks, a final norm and the heads."""
    model = UMT(**UMT_L, image_size=32, table_side=2, select_layer=-1)
    shuffled(model)
    extra = {f"vision_encoder.encoder.norm.{kind}": torch.ones(64) for kind in ("weight", "bias")}
    extra |= {"vision_encoder.clip_decoder.0.head.weight": torch.ones(2), "temp": torch.ones(1),
              "text_encoder.bert.embeddings.word_embeddings.weight": torch.ones(2, 2)}  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": _vision(model, "vision_encoder.encoder.", norm=False) | extra, "epoch": 1}, file)
    return model


def videochat2(file: Path, stage: Literal[2, 3]) -> tuple[UMT, QFormer]:
    """VideoChat2-Mistral's file of a stage: without a language model, but in stage 3 with its LoRA."""
    vision = UMT(**UMT_L, image_size=32, table_side=2)
    reader = QFormer(64, TEXT["hidden_size"], **QUERIES, text=stage == 3, vocab_size=TEXT["vocab_size"])
    shuffled(vision), shuffled(reader, 1)
    state = _vision(vision, "vision_encoder.encoder.", norm=True)
    for name, tensor in reader.state_dict().items():
        key = name.replace("embeddings.layernorm.", "embeddings.LayerNorm.").replace(".attention.attention.", ".@.")
        key = key.replace("crossattention.attention.", "crossattention.self.").replace(".@.", ".attention.self.")
        key = key.replace("model.layernorm.", "model.embeddings.LayerNorm.")
        key = {"queries": "query_tokens", "extra_queries": "extra_query_tokens"}.get(key, key)
        key = key.replace("linears.0.", "mistral_proj.")
        state[f"qformer.bert.{key.removeprefix('model.')}" if key.startswith("model.") else key] = tensor
    if stage == 3:
        state |= lora()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state}, file)
    return vision, reader


def lora(rank: int = 4) -> dict[str, Tensor]:
    """LoRA on every Linear of the language model of ``TEXT``, as peft names it."""
    dim, inner, keys = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["hidden_size"] // 2
    into_out = {
        "self_attn.q_proj": (dim, dim), "self_attn.k_proj": (dim, keys), "self_attn.v_proj": (dim, keys),
        "self_attn.o_proj": (dim, dim), "mlp.gate_proj": (dim, inner), "mlp.up_proj": (dim, inner),
        "mlp.down_proj": (inner, dim),
    }  # fmt: skip
    layers = range(TEXT["num_hidden_layers"])
    places = {f"model.layers.{n}.{name}": shape for n in layers for name, shape in into_out.items()}
    places["lm_head"] = (dim, TEXT["vocab_size"])
    random = torch.Generator().manual_seed(2)
    made = {}
    for place, (into, out) in places.items():
        base = f"mistral_model.base_model.model.{place}"
        made[f"{base}.lora_A.default.weight"] = torch.randn(rank, into, generator=random) * 0.2
        made[f"{base}.lora_B.default.weight"] = torch.randn(out, rank, generator=random) * 0.2
    return made


def speaks_mistral(tokenizer: str, folder: Path) -> str:
    """A tokenizer with the marks of Mistral's template besides its own."""
    made = AutoTokenizer.from_pretrained(tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
    made.save_pretrained(folder)
    return str(folder)
