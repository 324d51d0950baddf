"""HumanOmni once more, plainly: from an official state dict and ``config.json``, sample by sample, nothing of ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

VIDEO, AUDIO, IGNORED = -201, -202, -100
TOWER, EARS = "model.vision_tower.vision_tower.vision_model", "model.audio_tower.audio_tower.encoder"


@dataclass
class Restated:
    """The released model.

    Attributes:
        state: official names, towers included.
        config: of the model: Qwen2's fields and the ``mm_`` ones, ``num_frames``.
        heads: attention heads of ``siglip``, ``whisper`` and ``bert``, which only their own folders say.
        small: ``AllInOneSmall`` without the compressor, the 0.5B form.
        wrong: one thing to do otherwise, for controls.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    heads: Mapping[str, int]
    small: bool = False
    wrong: str = ""
    weights: list[Tensor] = field(default_factory=list)

    def linear(self, x: Tensor, key: str) -> Tensor:
        return F.linear(x, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"))

    def norm(self, x: Tensor, key: str, eps: float) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.state[f"{key}.bias"], eps)

    def attention(self, x: Tensor, q: str, k: str, v: str, out: str, heads: int) -> Tensor:
        """Everything ``[... L D]`` attends to everything."""
        parts = [self.linear(x, key).unflatten(-1, (heads, -1)).transpose(-2, -3) for key in (q, k, v)]
        scores = parts[0] @ parts[1].transpose(-1, -2) / math.sqrt(parts[0].shape[-1])
        return self.linear((scores.softmax(-1) @ parts[2]).transpose(-2, -3).flatten(-2), out)

    def numbered(self, prefix: str) -> list[int]:
        """Numbers of the blocks below a prefix."""
        found = {key[len(prefix) + 1 :].split(".")[0] for key in self.state if key.startswith(f"{prefix}.")}
        return sorted(map(int, found))

    # 1.2 vision tower

    def patches(self, frames: Tensor) -> Tensor:
        """uint8 ``[T 3 S S]`` -> ``[T N D]``: hidden_states[-2]."""
        key = f"{TOWER}.embeddings"
        pixels = (frames.float() / 255 - 0.5) / 0.5
        weight, bias = self.state[f"{key}.patch_embedding.weight"], self.state[f"{key}.patch_embedding.bias"]
        x = F.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
        states = [x + self.state[f"{key}.position_embedding.weight"]]
        for number in self.numbered(f"{TOWER}.encoder.layers"):
            at = f"{TOWER}.encoder.layers.{number}"
            y, names = self.norm(states[-1], f"{at}.layer_norm1", 1e-6), ("q_proj", "k_proj", "v_proj", "out_proj")
            x = states[-1] + self.attention(y, *(f"{at}.self_attn.{name}" for name in names), self.heads["siglip"])
            y = F.gelu(self.linear(self.norm(x, f"{at}.layer_norm2", 1e-6), f"{at}.mlp.fc1"), approximate="tanh")
            states.append(x + self.linear(y, f"{at}.mlp.fc2"))
        return states[-1 if self.wrong == "last hidden state" else self.config["mm_vision_select_layer"]]

    # 1.3 AllInOne, AllInOneSmall

    def unit(self, x: Tensor, key: str) -> Tensor:
        """timm's ConvNormAct without the activation: a convolution, and a LayerNorm over channels."""
        weight = self.state[f"{key}.conv.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
        return self.norm(x.movedim(1, -1), f"{key}.bn", 1e-5).movedim(-1, 1)

    def block(self, x: Tensor, key: str) -> Tensor:
        """timm's Bottleneck of a RegStage: 1x1, depthwise 3x3, squeeze and excite, 1x1, shortcut."""
        y = F.silu(self.unit(F.silu(self.unit(x, f"{key}.conv1")), f"{key}.conv2"))
        weights = [self.state[f"{key}.se.{name}"] for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]
        squeezed = F.silu(F.conv2d(y.mean((2, 3), keepdim=True), *weights[:2]))
        y = self.unit(y * F.conv2d(squeezed, *weights[2:]).sigmoid(), f"{key}.conv3")
        return F.silu(y + (self.unit(x, f"{key}.downsample") if f"{key}.downsample.conv.weight" in self.state else x))

    def stc(self, x: Tensor, branch: str) -> Tensor:
        """Patches ``[T N D]`` -> ``[T N' D']``; no frame is lost."""
        side, at = math.isqrt(x.shape[1]), "model.mm_projector."
        x = x.transpose(1, 2).unflatten(2, (side, side))
        for number in range(1, 3 if self.small else 5):
            x = self.block(x, f"{at}s1_{branch}.b{number}")
        weight, bias = self.state[f"{at}sampler_{branch}.0.weight"], self.state[f"{at}sampler_{branch}.0.bias"]
        padding = (1, 0, 0) if self.small else (1, 1, 1)
        x = F.silu(F.conv3d(x.transpose(0, 1)[None], weight, bias, stride=(1, 2, 2), padding=padding))
        x = (x[0, :, 1:] if self.wrong == "first moment cut" else x[0, :, :-1]).transpose(0, 1)
        for number in range(1, 3 if self.small else 5):
            x = self.block(x, f"{at}s2_{branch}.b{number}")
        return self.mlp(x.flatten(2).transpose(1, 2), f"{at}readout_{branch}")

    def mlp(self, x: Tensor, key: str) -> Tensor:
        return self.linear(F.gelu(self.linear(x, f"{key}.0")), f"{key}.2")

    def face(self, x: Tensor) -> Tensor:
        """The face branch and get_2dPool."""
        side = math.isqrt(x.shape[1])
        maps = self.mlp(x, "model.mm_projector.mlp_2xgelu_face").transpose(1, 2).unflatten(2, (side, side))
        half = math.ceil(side / 2)
        mode = "nearest" if self.wrong == "nearest pool" else "bilinear"
        return F.interpolate(maps, size=(half, half), mode=mode).flatten(2).transpose(1, 2)

    # 1.4 instruction-driven fusion

    def cls(self, ids: Tensor) -> Tensor:
        """BERT's raw [CLS] state of ids ``[W]``."""
        at, eps = "model.bert_model", 1e-12
        word, place, kind = (
            self.state[f"{at}.embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        x = self.norm(word[ids] + place[: len(ids)] + kind[0], f"{at}.embeddings.LayerNorm", eps)
        for number in self.numbered(f"{at}.encoder.layer"):
            layer = f"{at}.encoder.layer.{number}"
            names = [f"{layer}.attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")]
            y = self.attention(x, *names, self.heads["bert"])
            x = self.norm(x + y, f"{layer}.attention.output.LayerNorm", eps)
            y = self.linear(F.gelu(self.linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
            x = self.norm(x + y, f"{layer}.output.LayerNorm", eps)
        return x[0]

    def seen(self, frames: Tensor, words: Tensor) -> Tensor:
        """Frames and the words of the question -> the tokens of ``<video>``."""
        x = self.patches(frames)
        branches = [self.stc(x, "video"), self.stc(x, "body"), self.face(x)]
        if self.wrong == "branches swapped":
            branches = branches[::-1]
        weights = self.mlp(self.cls(words), "model.bert_gate").softmax(-1)
        self.weights.append(weights)
        fused = sum(weight * branch for weight, branch in zip(weights, branches, strict=True))
        assert isinstance(fused, Tensor)
        return fused.flatten(0, 1) if self.small else self.compressed(fused)

    # 1.5 SFDynamicCompressor

    def compressed(self, x: Tensor) -> Tensor:
        """Every frame pooled 2 x 2, then frames 1, 5, 9 ... whole."""
        assert len(x) == self.config["num_frames"]
        side = math.isqrt(x.shape[1])
        fast = F.avg_pool2d(x.transpose(1, 2).unflatten(2, (side, side)), 2).flatten(2).transpose(1, 2).flatten(0, 1)
        slow = x[torch.arange(1, len(x), 4) if len(x) > 1 else torch.tensor([0])].flatten(0, 1)
        return torch.cat([slow, fast] if self.wrong == "slow first" else [fast, slow])

    # 1.6 audio path

    def heard(self, mel: Tensor) -> Tensor:
        """Log-mel ``[M 3000]`` -> the 500 tokens of ``<audio>``."""
        x = mel[None]
        for name, stride in (("conv1", 1), ("conv2", 2)):
            weight, bias = self.state[f"{EARS}.{name}.weight"], self.state[f"{EARS}.{name}.bias"]
            x = F.gelu(F.conv1d(x, weight, bias, stride=stride, padding=1))
        x = x[0].T + self.state[f"{EARS}.embed_positions.weight"]
        for number in self.numbered(f"{EARS}.layers"):
            at = f"{EARS}.layers.{number}"
            y = self.norm(x, f"{at}.self_attn_layer_norm", 1e-5)
            names = [f"{at}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")]
            x = x + self.attention(y, *names, self.heads["whisper"])
            y = F.gelu(self.linear(self.norm(x, f"{at}.final_layer_norm", 1e-5), f"{at}.fc1"))
            x = x + self.linear(y, f"{at}.fc2")
        x = self.norm(x, f"{EARS}.layer_norm", 1e-5)
        return self.mlp(F.avg_pool1d(x.T[None], kernel_size=3, stride=3)[0].T, "model.audio_projector")

    # 1.7 splicing

    def spliced(
        self, ids: Tensor, labels: Tensor, frames: Tensor | None, mel: Tensor | None, words: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ids with one placeholder a medium, and labels -> embeddings ``[L D]`` and their labels."""
        media = {
            VIDEO: self.seen(frames, words) if frames is not None else None,
            AUDIO: self.heard(mel) if mel is not None else None,
        }
        pieces, said = list[Tensor](), list[Tensor]()
        for token, label in zip(ids.tolist(), labels, strict=True):
            piece = media[token] if token < 0 else self.state["model.embed_tokens.weight"][token][None]
            assert piece is not None
            pieces.append(piece)
            said.append(label[None] if token >= 0 else torch.full((len(piece),), IGNORED))
        return torch.cat(pieces), torch.cat(said)

    # 1.1 Qwen2

    def logits(self, x: Tensor) -> Tensor:
        """Embeddings ``[L D]`` -> logits ``[L V]``."""
        heads, groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        eps, length = self.config["rms_norm_eps"], len(x)
        size = self.config["hidden_size"] // heads
        speed = 1 / self.config["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
        angles = (torch.arange(length).float()[:, None] * speed).repeat(1, 2)
        causal = torch.full((length, length), -torch.inf).triu(1)

        def rms(x: Tensor, key: str) -> Tensor:
            return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * self.state[f"{key}.weight"]

        def turned(x: Tensor) -> Tensor:
            one, other = x.chunk(2, dim=-1)
            return x * angles.cos() + torch.cat([-other, one], dim=-1) * angles.sin()

        for number in self.numbered("model.layers"):
            at = f"model.layers.{number}"
            y = rms(x, f"{at}.input_layernorm")
            q, k, v = (
                self.linear(y, f"{at}.self_attn.{name}_proj").unflatten(1, (-1, size)).transpose(0, 1) for name in "qkv"
            )
            q, k, v = (
                turned(q),
                turned(k).repeat_interleave(heads // groups, 0),
                v.repeat_interleave(heads // groups, 0),
            )
            scores = (q @ k.transpose(1, 2) / math.sqrt(size) + causal).softmax(-1)
            x = x + self.linear((scores @ v).transpose(0, 1).flatten(1), f"{at}.self_attn.o_proj")
            y = rms(x, f"{at}.post_attention_layernorm")
            gated = F.silu(self.linear(y, f"{at}.mlp.gate_proj")) * self.linear(y, f"{at}.mlp.up_proj")
            x = x + self.linear(gated, f"{at}.mlp.down_proj")
        head = "model.embed_tokens" if self.config["tie_word_embeddings"] else "lm_head"
        return F.linear(rms(x, "model.norm"), self.state[f"{head}.weight"])

    def loss(self, samples: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Spliced samples -> cross-entropy, the mean over all supervised tokens of the batch."""
        logits = torch.cat([self.logits(x)[:-1] for x, _ in samples])
        labels = torch.cat([said[1:] for _, said in samples])
        return F.cross_entropy(logits, labels, ignore_index=IGNORED)
