"""A plain reference implementation of HumanOmni on an official state dict, sample by sample, without our code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

VIDEO, AUDIO, IGNORE_INDEX = -201, -202, -100
VISION_TOWER = "model.vision_tower.vision_tower.vision_model"
AUDIO_TOWER = "model.audio_tower.audio_tower.encoder"


@dataclass
class ReferenceHumanOmni:
    """The released model.

    Attributes:
        state: official names, towers included.
        config: of the model: Qwen2's fields and the ``mm_`` ones, ``num_frames``.
        heads: attention heads of ``siglip``, ``whisper`` and ``bert``, which only their own folders contain.
        is_small: ``AllInOneSmall`` without the compressor, the 0.5B form.
        fault: one deliberate error, for controls.
        gate_weights: of every sample with video, in order.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    heads: Mapping[str, int]
    is_small: bool = False
    fault: str = ""
    gate_weights: list[Tensor] = field(default_factory=list)

    def linear(self, x: Tensor, key: str) -> Tensor:
        return F.linear(x, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"))

    def layer_norm(self, x: Tensor, key: str, eps: float) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.state[f"{key}.bias"], eps)

    def attention(self, x: Tensor, keys: tuple[str, str, str, str], heads: int) -> Tensor:
        """Full self-attention of ``[... L D]``; ``keys`` of query, key, value and output."""
        query, key, value = (self.linear(x, name).unflatten(-1, (heads, -1)).transpose(-2, -3) for name in keys[:3])
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return self.linear((scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2), keys[3])

    def block_numbers(self, prefix: str) -> list[int]:
        """Return the numbers of the blocks below a prefix."""
        numbers = {int(key[len(prefix) + 1 :].split(".")[0]) for key in self.state if key.startswith(f"{prefix}.")}
        return sorted(numbers)

    # 1.2 vision tower

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 ``[T 3 S S]`` -> ``[T N D]``: hidden_states[-2]."""
        key = f"{VISION_TOWER}.embeddings"
        pixels = (frames.float() / 255 - 0.5) / 0.5
        weight, bias = self.state[f"{key}.patch_embedding.weight"], self.state[f"{key}.patch_embedding.bias"]
        x = F.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
        states = [x + self.state[f"{key}.position_embedding.weight"]]
        for number in self.block_numbers(f"{VISION_TOWER}.encoder.layers"):
            block = f"{VISION_TOWER}.encoder.layers.{number}"
            y = self.layer_norm(states[-1], f"{block}.layer_norm1", 1e-6)
            x = states[-1] + self.attention(y, projection_keys(f"{block}.self_attn"), self.heads["siglip"])
            y = F.gelu(
                self.linear(self.layer_norm(x, f"{block}.layer_norm2", 1e-6), f"{block}.mlp.fc1"), approximate="tanh"
            )
            states.append(x + self.linear(y, f"{block}.mlp.fc2"))
        if self.fault == "last hidden state":
            return states[-1]
        return states[self.config["mm_vision_select_layer"]]

    # 1.3 AllInOne, AllInOneSmall

    def conv_norm(self, x: Tensor, key: str) -> Tensor:
        """timm's ConvNormAct without the activation: a convolution, and a LayerNorm over channels."""
        weight = self.state[f"{key}.conv.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
        return self.layer_norm(x.movedim(1, -1), f"{key}.bn", 1e-5).movedim(-1, 1)

    def bottleneck(self, x: Tensor, key: str) -> Tensor:
        """timm's Bottleneck of a RegStage: 1x1, depthwise 3x3, squeeze and excite, 1x1, shortcut."""
        y = F.silu(self.conv_norm(F.silu(self.conv_norm(x, f"{key}.conv1")), f"{key}.conv2"))
        excite = y.mean((2, 3), keepdim=True)
        excite = F.silu(F.conv2d(excite, self.state[f"{key}.se.fc1.weight"], self.state[f"{key}.se.fc1.bias"]))
        excite = F.conv2d(excite, self.state[f"{key}.se.fc2.weight"], self.state[f"{key}.se.fc2.bias"]).sigmoid()
        y = self.conv_norm(y * excite, f"{key}.conv3")
        if f"{key}.downsample.conv.weight" in self.state:
            x = self.conv_norm(x, f"{key}.downsample")
        return F.silu(y + x)

    def stc(self, x: Tensor, branch: str) -> Tensor:
        """Patches ``[T N D]`` -> ``[T N' D']``; T stays the same."""
        side, prefix = math.isqrt(x.shape[1]), "model.mm_projector."
        depth = 2 if self.is_small else 4
        x = x.transpose(1, 2).unflatten(2, (side, side))
        for number in range(1, depth + 1):
            x = self.bottleneck(x, f"{prefix}s1_{branch}.b{number}")
        weight, bias = self.state[f"{prefix}sampler_{branch}.0.weight"], self.state[f"{prefix}sampler_{branch}.0.bias"]
        padding = (1, 0, 0) if self.is_small else (1, 1, 1)
        x = F.silu(F.conv3d(x.transpose(0, 1)[None], weight, bias, stride=(1, 2, 2), padding=padding))
        frames = slice(1, None) if self.fault == "first frame cut" else slice(-1)
        x = x[0, :, frames].transpose(0, 1)
        for number in range(1, depth + 1):
            x = self.bottleneck(x, f"{prefix}s2_{branch}.b{number}")
        return self.mlp(x.flatten(2).transpose(1, 2), f"{prefix}readout_{branch}")

    def mlp(self, x: Tensor, key: str) -> Tensor:
        return self.linear(F.gelu(self.linear(x, f"{key}.0")), f"{key}.2")

    def face(self, x: Tensor) -> Tensor:
        """The face branch and get_2dPool."""
        side = math.isqrt(x.shape[1])
        maps = self.mlp(x, "model.mm_projector.mlp_2xgelu_face").transpose(1, 2).unflatten(2, (side, side))
        half = math.ceil(side / 2)
        mode = "nearest" if self.fault == "nearest pool" else "bilinear"
        return F.interpolate(maps, size=(half, half), mode=mode).flatten(2).transpose(1, 2)

    # 1.4 instruction-driven fusion

    def encode_instruction(self, ids: Tensor) -> Tensor:
        """BERT's raw [CLS] state of ids ``[W]``."""
        embeddings, eps = "model.bert_model.embeddings", 1e-12
        x = self.state[f"{embeddings}.word_embeddings.weight"][ids]
        x = x + self.state[f"{embeddings}.position_embeddings.weight"][: len(ids)]
        x = x + self.state[f"{embeddings}.token_type_embeddings.weight"][0]
        x = self.layer_norm(x, f"{embeddings}.LayerNorm", eps)
        for number in self.block_numbers("model.bert_model.encoder.layer"):
            layer = f"model.bert_model.encoder.layer.{number}"
            attention = f"{layer}.attention"
            keys = (
                f"{attention}.self.query",
                f"{attention}.self.key",
                f"{attention}.self.value",
                f"{attention}.output.dense",
            )
            y = self.attention(x, keys, self.heads["bert"])
            x = self.layer_norm(x + y, f"{layer}.attention.output.LayerNorm", eps)
            y = self.linear(F.gelu(self.linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
            x = self.layer_norm(x + y, f"{layer}.output.LayerNorm", eps)
        return x[0]

    def encode_video(self, frames: Tensor, instruction: Tensor) -> Tensor:
        """Frames and the ids of the instruction -> the tokens of ``<video>``."""
        x = self.encode_frames(frames)
        branches = [self.stc(x, "video"), self.stc(x, "body"), self.face(x)]
        if self.fault == "branches swapped":
            branches = branches[::-1]
        weights = self.mlp(self.encode_instruction(instruction), "model.bert_gate").softmax(-1)
        self.gate_weights.append(weights)
        fused = torch.zeros_like(branches[0])
        for weight, branch in zip(weights, branches, strict=True):
            fused = fused + weight * branch
        return fused.flatten(0, 1) if self.is_small else self.compress(fused)

    # 1.5 SFDynamicCompressor

    def compress(self, x: Tensor) -> Tensor:
        """Return every frame pooled 2 x 2, then frames 1, 5, 9 ... in full."""
        assert len(x) == self.config["num_frames"]
        side = math.isqrt(x.shape[1])
        fast = F.avg_pool2d(x.transpose(1, 2).unflatten(2, (side, side)), 2).flatten(2).transpose(1, 2).flatten(0, 1)
        indices = torch.arange(1, len(x), 4) if len(x) > 1 else torch.tensor([0])
        slow = x[indices].flatten(0, 1)
        return torch.cat([slow, fast] if self.fault == "slow first" else [fast, slow])

    # 1.6 audio path

    def encode_audio(self, mel: Tensor) -> Tensor:
        """Log-mel ``[M 3000]`` -> the 500 tokens of ``<audio>``."""
        x = mel[None]
        for name, stride in (("conv1", 1), ("conv2", 2)):
            weight, bias = self.state[f"{AUDIO_TOWER}.{name}.weight"], self.state[f"{AUDIO_TOWER}.{name}.bias"]
            x = F.gelu(F.conv1d(x, weight, bias, stride=stride, padding=1))
        x = x[0].T + self.state[f"{AUDIO_TOWER}.embed_positions.weight"]
        for number in self.block_numbers(f"{AUDIO_TOWER}.layers"):
            block = f"{AUDIO_TOWER}.layers.{number}"
            y = self.layer_norm(x, f"{block}.self_attn_layer_norm", 1e-5)
            x = x + self.attention(y, projection_keys(f"{block}.self_attn"), self.heads["whisper"])
            y = F.gelu(self.linear(self.layer_norm(x, f"{block}.final_layer_norm", 1e-5), f"{block}.fc1"))
            x = x + self.linear(y, f"{block}.fc2")
        x = self.layer_norm(x, f"{AUDIO_TOWER}.layer_norm", 1e-5)
        return self.mlp(F.avg_pool1d(x.T[None], kernel_size=3, stride=3)[0].T, "model.audio_projector")

    # 1.7 splicing

    def splice(
        self, ids: Tensor, labels: Tensor, frames: Tensor | None, mel: Tensor | None, instruction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ids with one placeholder a medium, and labels -> embeddings ``[L D]`` and their labels."""
        media = {}
        if frames is not None:
            media[VIDEO] = self.encode_video(frames, instruction)
        if mel is not None:
            media[AUDIO] = self.encode_audio(mel)
        embeddings, spliced_labels = list[Tensor](), list[Tensor]()
        for token, label in zip(ids.tolist(), labels, strict=True):
            if token < 0:
                embeddings.append(media[token])
                spliced_labels.append(torch.full((len(media[token]),), IGNORE_INDEX))
            else:
                embeddings.append(self.state["model.embed_tokens.weight"][token][None])
                spliced_labels.append(label[None])
        return torch.cat(embeddings), torch.cat(spliced_labels)

    # 1.1 Qwen2

    def rms_norm(self, x: Tensor, key: str) -> Tensor:
        return (
            x / (x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]).sqrt() * self.state[f"{key}.weight"]
        )

    def causal_attention(self, x: Tensor, key: str) -> Tensor:
        """Grouped-query attention of ``[L D]`` with rotary positions."""
        heads, groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        length, size = len(x), self.config["hidden_size"] // heads
        frequencies = 1 / self.config["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
        angles = (torch.arange(length).float()[:, None] * frequencies).repeat(1, 2)
        query = rotate(self.linear(x, f"{key}.q_proj").unflatten(1, (-1, size)).transpose(0, 1), angles)
        keys = rotate(self.linear(x, f"{key}.k_proj").unflatten(1, (-1, size)).transpose(0, 1), angles)
        values = self.linear(x, f"{key}.v_proj").unflatten(1, (-1, size)).transpose(0, 1)
        keys, values = keys.repeat_interleave(heads // groups, 0), values.repeat_interleave(heads // groups, 0)
        causal = torch.full((length, length), -torch.inf).triu(1)
        scores = (query @ keys.transpose(1, 2) / math.sqrt(size) + causal).softmax(-1)
        return self.linear((scores @ values).transpose(0, 1).flatten(1), f"{key}.o_proj")

    def logits(self, x: Tensor) -> Tensor:
        """Embeddings ``[L D]`` -> logits ``[L V]``."""
        for number in self.block_numbers("model.layers"):
            layer = f"model.layers.{number}"
            x = x + self.causal_attention(self.rms_norm(x, f"{layer}.input_layernorm"), f"{layer}.self_attn")
            y = self.rms_norm(x, f"{layer}.post_attention_layernorm")
            y = F.silu(self.linear(y, f"{layer}.mlp.gate_proj")) * self.linear(y, f"{layer}.mlp.up_proj")
            x = x + self.linear(y, f"{layer}.mlp.down_proj")
        head = "model.embed_tokens" if self.config["tie_word_embeddings"] else "lm_head"
        return F.linear(self.rms_norm(x, "model.norm"), self.state[f"{head}.weight"])

    def loss(self, samples: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Embeddings and labels of samples -> cross-entropy, the mean over all labels of the batch."""
        logits = torch.cat([self.logits(embeddings)[:-1] for embeddings, _ in samples])
        labels = torch.cat([labels[1:] for _, labels in samples])
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)


def projection_keys(prefix: str) -> tuple[str, str, str, str]:
    return f"{prefix}.q_proj", f"{prefix}.k_proj", f"{prefix}.v_proj", f"{prefix}.out_proj"


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Apply rotary positions to ``[heads L D]``."""
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
