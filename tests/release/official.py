"""Tiny random HumanOmni checkpoints as they are released: true key names, config.json, tokenizer, towers."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertModel, SiglipConfig, SiglipVisionModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnihuman.release.convert import Request, convert

HIDDEN, BRANCHES = 32, 3
GATE = 3584
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
AUDIO = {"num_mel_bins": 128, "d_model": 12, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
WORDS = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWER = "model.vision_tower.vision_tower."
EARS = "model.audio_tower.audio_tower."


@dataclass(frozen=True)
class Official:
    """A folder that was written, and what is in it.

    Attributes:
        folder: of the model.
        siglip: folder of the vision tower, ``None`` where only the checkpoint holds it; ``whisper`` likewise.
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
        """What ``python -m omnihuman.convert`` must be told besides path and out."""
        return {"instruction_encoder": str(self.bert)}


def write_official(
    root: Path,
    form: Literal["7b", "0_5b"] = "7b",
    *,
    layout: Literal["shards", "single", "bin", "bin shards"] = "shards",
    towers: Literal["inside", "beside"] = "inside",
    segment: str = "vision_model.",
    hears: bool = True,
    frames: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    change: Mapping[str, Any] | None = None,
) -> Official:
    """Write ``root/HumanOmni``, ``root/siglip``, ``root/whisper`` and ``root/bert``, all weights random.

    Args:
        root: an empty folder.
        form: ``7b`` (all_in_one, depth 4, compressor, own head) or ``0_5b`` (all_in_one_small, depth 2, tied).
        layout: of the weights' files.
        towers: whether the checkpoint holds the towers, as their trainer writes it; their folders always do.
        segment: of the vision tower's names, which transformers 5 has dropped.
        hears: whether there is an audio tower.
        frames: ``num_frames``.
        dtype: of the checkpoint.
        seed: of the weights.
        change: fields of ``config.json`` to set, or to leave out (``None``).
    """
    folder = root / "HumanOmni"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    nano = Path(str(files("omnihuman"))) / "foundation" / "nano"
    shutil.copytree(nano / "bert", root / "bert", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    siglip, whisper, bert = _towers(root, segment, form, generator, dtype)
    state = _language(form) | _projector(form) | {f"model.bert_model.{key}": x for key, x in bert.items()}
    state |= _linear("model.bert_gate.0", WORDS["hidden_size"], GATE) | _linear("model.bert_gate.2", GATE, BRANCHES)
    if form == "7b":
        state |= _linear("model.feature_compressor.vlm_query_projector", VISION["hidden_size"], 256)
        state |= _linear("model.feature_compressor.vlm_key_projector", VISION["hidden_size"], 256)
    if hears:
        state |= _linear("model.audio_projector.0", AUDIO["d_model"], HIDDEN)
        state |= _linear("model.audio_projector.2", HIDDEN, HIDDEN)
    if towers == "inside":
        state |= {TOWER + key: x for key, x in siglip.items()}
        if hears:
            state |= {EARS + key: x for key, x in whisper.items()} | _linear(f"{EARS}projector", AUDIO["d_model"], 256)
            state |= _linear(f"{EARS}classifier", 256, 2)
    known = {**{TOWER + key: x for key, x in siglip.items()}, **{EARS + key: x for key, x in whisper.items()}}
    known |= {f"model.bert_model.{key}": x for key, x in bert.items()}
    state = {key: known[key] if key in known else _random(key, x, generator) for key, x in state.items()}
    state = {key: x.to(dtype).contiguous() for key, x in state.items()}
    write_files(folder, state, layout)
    _tokenizer(nano / "llm", folder)
    config = _config(form, root, hears, frames) | dict(change or {})
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return Official(folder, root / "siglip", root / "whisper" if hears else None, root / "bert", state, config)


def make(official: Official, out: Path, **options: Any) -> Path:
    """The model folder that it becomes."""
    return convert(Request("humanomni", str(official.folder), out, official.options | options))


def write_files(folder: Path, state: Mapping[str, Tensor], layout: str = "shards") -> None:
    """The files of a checkpoint: one, or three shards with their index, as safetensors or as pickles."""
    end = "bin" if layout.startswith("bin") else "safetensors"
    stem = "pytorch_model" if end == "bin" else "model"

    def write(name: str, tensors: Mapping[str, Tensor]) -> None:
        if end == "bin":
            torch.save(dict(tensors), folder / name)
        else:
            save_file(dict(tensors), folder / name, {"format": "pt"})

    if layout in ("single", "bin"):
        write(f"{stem}.{end}", state)
        return
    keys, where = sorted(state), dict[str, str]()
    for number in range(3):
        name = f"{stem}-{number + 1:05d}-of-00003.{end}"
        part = keys[number * len(keys) // 3 : (number + 1) * len(keys) // 3]
        write(name, {key: state[key] for key in part})
        where |= dict.fromkeys(part, name)
    size = sum(each.numel() * each.element_size() for each in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))


def _linear(key: str, inner: int, outer: int) -> dict[str, Tensor]:
    return {f"{key}.weight": torch.empty(outer, inner), f"{key}.bias": torch.empty(outer)}


def _random(key: str, like: Tensor, generator: torch.Generator) -> Tensor:
    values = torch.randn(like.shape, generator=generator)
    if "norm" in key or ".bn." in key or "LayerNorm" in key:
        return values / 10 + key.endswith("weight")
    inner = like[0].numel() if like.ndim > 1 else 100
    return values / inner**0.5


def _language(form: str) -> dict[str, Tensor]:
    vocabulary, inner, narrow = 1024, 48, HIDDEN // 2
    state = {"model.embed_tokens.weight": torch.empty(vocabulary, HIDDEN), "model.norm.weight": torch.empty(HIDDEN)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        for name, outer in (("q", HIDDEN), ("k", narrow), ("v", narrow)):
            state |= _linear(f"{prefix}.self_attn.{name}_proj", HIDDEN, outer)
        state[f"{prefix}.self_attn.o_proj.weight"] = torch.empty(HIDDEN, HIDDEN)
        state |= {f"{prefix}.mlp.{name}_proj.weight": torch.empty(inner, HIDDEN) for name in ("gate", "up")}
        state[f"{prefix}.mlp.down_proj.weight"] = torch.empty(HIDDEN, inner)
        state |= {f"{prefix}.{name}.weight": torch.empty(HIDDEN)
                  for name in ("input_layernorm", "post_attention_layernorm")}  # fmt: skip
    return state if form == "0_5b" else state | {"lm_head.weight": torch.empty(vocabulary, HIDDEN)}


def _projector(form: str) -> dict[str, Tensor]:
    """Reference: the table of HumanOmni's 7B keys; the squeeze of a block is a quarter of its input's channels."""
    state = _linear("model.mm_projector.mlp_2xgelu_face.0", VISION["hidden_size"], HIDDEN)
    state |= _linear("model.mm_projector.mlp_2xgelu_face.2", HIDDEN, HIDDEN)
    for branch in ("video", "body"):
        for stage in ("s1", "s2"):
            for block in range(1, (4 if form == "7b" else 2) + 1):
                first = (stage, block) == ("s1", 1)
                state |= _block(f"model.mm_projector.{stage}_{branch}.b{block}", first)
        state[f"model.mm_projector.sampler_{branch}.0.weight"] = torch.empty(HIDDEN, HIDDEN, 2, 2, 2)
        state[f"model.mm_projector.sampler_{branch}.0.bias"] = torch.empty(HIDDEN)
        for layer in (0, 2):
            state |= _linear(f"model.mm_projector.readout_{branch}.{layer}", HIDDEN, HIDDEN)
    return state


def _block(prefix: str, first: bool) -> dict[str, Tensor]:
    inner = VISION["hidden_size"] if first else HIDDEN
    convs = {"conv1": (HIDDEN, inner, 1, 1), "conv2": (HIDDEN, 1, 3, 3), "conv3": (HIDDEN, HIDDEN, 1, 1)}
    if first:
        convs["downsample"] = (HIDDEN, inner, 1, 1)
    state = {f"{prefix}.{name}.conv.weight": torch.empty(shape) for name, shape in convs.items()}
    state |= {f"{prefix}.{name}.bn.{kind}": torch.empty(HIDDEN) for name in convs for kind in ("weight", "bias")}
    squeezed = round(inner * 0.25)
    state |= {f"{prefix}.se.fc1.weight": torch.empty(squeezed, HIDDEN, 1, 1), f"{prefix}.se.fc1.bias":
              torch.empty(squeezed)}  # fmt: skip
    state |= {f"{prefix}.se.fc2.weight": torch.empty(HIDDEN, squeezed, 1, 1), f"{prefix}.se.fc2.bias":
              torch.empty(HIDDEN)}  # fmt: skip
    return state


def _towers(
    root: Path, segment: str, form: str, generator: torch.Generator, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Folders of the towers as on the hub, and their tensors as HumanOmni's trainer names them."""
    side = 42 if form == "7b" else 56  # patches of 14: a grid of 3 x 3, and an even one
    seen = {**VISION, "image_size": side, "patch_size": 14}
    vision = SiglipConfig(vision_config=seen, text_config={"hidden_size": 16, "num_hidden_layers": 1})
    heard = WhisperConfig(**AUDIO, decoder_layers=1)
    read = BertConfig(**WORDS, vocab_size=1024)
    models = SiglipVisionModel(vision.vision_config), WhisperEncoder(heard), BertModel(read)
    siglip, whisper, bert = (
        {key: _random(key, x, generator).to(dtype) for key, x in model.named_parameters()} for model in models
    )
    for name, config, state in (
        ("siglip", vision, {f"vision_model.{key}": x for key, x in siglip.items()} | {"logit_scale": torch.ones(1)}),
        ("whisper", heard, {f"model.encoder.{key}": x for key, x in whisper.items()}),
        ("bert", read, {f"bert.{key}": x for key, x in bert.items()} | {"cls.predictions.bias": torch.ones(1024)}),
    ):
        (root / name).mkdir(exist_ok=True)
        config.to_json_file(root / name / "config.json")
        held = {key: x.contiguous() for key, x in state.items()}
        save_file(held, root / name / "model.safetensors", {"format": "pt"})
    named = {f"{segment}{key}": x for key, x in siglip.items()}
    return named, {f"encoder.{key}": x for key, x in whisper.items()}, bert


def _tokenizer(source: Path, folder: Path) -> None:
    """As Qwen2.5 comes: ``tokenizer.json``, and ``vocab.json`` with ``merges.txt`` for the slow one."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def _config(form: str, root: Path, hears: bool, frames: int | None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["HumanOmniQwen2ForCausalLM"], "model_type": "HumanOmni_qwen2", "hidden_act": "silu",
        "vocab_size": 1024, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "tie_word_embeddings": form == "0_5b", "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0", "use_sliding_window": False, "use_cache": True,
        "mm_vision_tower": str(root / "siglip"), "mm_hidden_size": VISION["hidden_size"],
        "mm_projector_type": "all_in_one" if form == "7b" else "all_in_one_small", "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "num_frames": frames or (4 if form == "7b" else 2),
        "mm_use_x_start_end": True, "image_aspect_ratio": "pad", "tune_mm_mlp_adapter": False, "use_mm_proj": True,
        "tokenizer_padding_side": "right", "tokenizer_model_max_length": 2048,
    }  # fmt: skip
    if hears:
        config |= {"mm_audio_tower": str(root / "whisper"), "mm_audio_projector_type": "mlp2x_gelu",
                   "audio_hidden_size": AUDIO["d_model"]}  # fmt: skip
    return config
