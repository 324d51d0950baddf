"""Whisper's encoder: log-mel hops -> one token per 60 ms."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperModel

from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import check_sizes, load_report
from omnihuman.types import Features, Layout, Signal

SAMPLE_RATE, WINDOW, HOP = 16000, 400, 160
HOPS = 6
"""Hops of 10 ms that become one token: a convolution of stride 2, then pooling by 3."""
LONGEST = 30 * SAMPLE_RATE


@lru_cache
def _filters(num_bins: int) -> Tensor:
    bank = mel_filter_bank(1 + WINDOW // 2, num_bins, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float()


@dataclass(frozen=True)
class LogMel:
    """A 16 kHz waveform ``[S]`` -> its log-mel spectrogram ``[T M]`` on the true length, in whole tokens of 60 ms.

    Reference: WhisperFeatureExtractor (25 ms window, 10 ms hop), equal to it on the hops they share.

    Attributes:
        num_bins: mel bins M.
    """

    num_bins: int

    def __call__(self, waveform: Float[Tensor, " S"]) -> Float[Tensor, "T M"]:
        waveform = waveform[:LONGEST]
        hops = HOPS * math.ceil(len(waveform) / (HOP * HOPS))
        # silence follows, as it does in the 30 s window of the official extractor; at the very end that one reflects
        tail = WINDOW // 2 + hops * HOP - len(waveform)
        padded = F.pad(F.pad(waveform[None], (WINDOW // 2, 0), mode="reflect")[0], (0, tail))
        spectrum = torch.stft(padded, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True)
        power = spectrum[:, :hops].abs() ** 2
        mel = (power.T @ _filters(self.num_bins)).clamp(min=1e-10).log10()
        return (mel.clamp(min=mel.max() - 8.0) + 4.0) / 4.0


class Whisper(Encoder):
    """Log-mel hops ``[B T M]`` -> tokens ``[B T/6 1 D]``: Whisper's encoder, then average pooling by 3.

    Reference: paper §4.2 (25/10 ms, 128 bins, pooling 3, one token per 60 ms) and HumanOmni's audio tower.
    Differs from the official code, whose clips always become 500 tokens (``keep="window"``): tokens of the silence
    behind a clip are dropped.

    Args:
        weights: folder or hub id; ``null`` builds the sizes at random.
        num_mel_bins: mel bins M.
        d_model: width D of a token.
        encoder_layers: blocks.
        encoder_attention_heads: heads of a block.
        encoder_ffn_dim: width inside a block.
        window_seconds: silence is added up to here before encoding, as Whisper was trained; ``null`` encodes the true
            length.
        keep: ``true_length``, or ``window`` for the tokens of the whole window.

    Raises:
        ValueError: a size contradicts the weights, the weights miss a parameter, or ``keep`` is ``window`` without one.
    """

    reads = "waveform"

    def __init__(
        self,
        *,
        num_mel_bins: int,
        d_model: int,
        encoder_layers: int,
        encoder_attention_heads: int,
        encoder_ffn_dim: int,
        weights: str | None = None,
        window_seconds: float | None = 30.0,
        keep: Literal["true_length", "window"] = "true_length",
    ) -> None:
        super().__init__()
        sizes = {
            "num_mel_bins": num_mel_bins, "d_model": d_model, "encoder_layers": encoder_layers,
            "encoder_attention_heads": encoder_attention_heads, "encoder_ffn_dim": encoder_ffn_dim,
        }  # fmt: skip
        if keep == "window" and window_seconds is None:
            raise ValueError("whisper: keep='window' keeps the tokens of a window; give window_seconds.")
        if weights is None:
            model = WhisperEncoder(WhisperConfig(**sizes))
        else:
            check_sizes(weights, WhisperConfig.from_pretrained(weights), sizes)
            whole, info = WhisperModel.from_pretrained(weights, dtype=torch.float32, output_loading_info=True)
            load_report(weights, info, dropped=("decoder.*",))
            model = whole.encoder
        self.conv1, self.conv2, self.embed_positions = model.conv1, model.conv2, model.embed_positions
        self.layers, self.layer_norm = model.layers, model.layer_norm
        self.out_dim, self.num_bins = d_model, num_mel_bins
        self.window = None if window_seconds is None else round(window_seconds * SAMPLE_RATE / HOP)
        self.keep = keep
        self.transform = LogMel(num_mel_bins)

    def layout(self, amount: int) -> Layout:
        if self.keep == "window":
            assert self.window is not None
            return Layout(self.window // HOPS, 1)
        return Layout(math.ceil(min(amount, LONGEST) / (HOP * HOPS)), 1)

    def forward(self, signal: Signal) -> Features:
        with self.graph():
            heard = signal.mask.any(dim=1)
            rows = heard if heard.any() or not torch.is_grad_enabled() else torch.ones_like(heard)
            mel, mask = self._padded(signal.values, signal.mask)
            kept = mask[:, ::HOPS] if self.keep == "true_length" else heard[:, None].expand(-1, mask.shape[1] // HOPS)
            tokens = torch.zeros(*kept.shape, 1, self.out_dim, device=mel.device)
            if rows.any():
                read = self._read(mel[rows], mask[rows])[:, : kept.shape[1], None]
                tokens = tokens.to(read.dtype).index_copy(0, rows.nonzero().squeeze(-1), read)
        return Features.of(tokens * kept[..., None, None], kept)

    def _padded(self, mel: Tensor, mask: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        """Whole tokens, the window's length where there is one, and each row's own silence behind its sound."""
        length = self.window or HOPS * math.ceil(mel.shape[1] / HOPS)
        mel = F.pad(mel, (0, 0, 0, max(0, length - mel.shape[1])))
        mask = F.pad(mask, (0, max(0, length - mask.shape[1])))
        # the extractor clamps at 8 below the loudest; scaled by 4 that is 2 below
        silence = mel.masked_fill(~mask[..., None], -torch.inf).amax(dim=(1, 2), keepdim=True).nan_to_num(neginf=0) - 2
        return torch.where(mask[..., None], mel, silence), mask

    def _read(self, mel: Tensor, mask: Tensor) -> Tensor:
        mel = rearrange(mel.to(self.conv1.weight.dtype), "B T M -> B M T")
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(mel))))
        hidden = rearrange(hidden, "B D T -> B T D")
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        attend = None
        if self.window is None:
            attend = mask[:, None, None, ::2].clone()
            attend[..., 0] = True  # a row without sound has something to attend to; its tokens are hidden
        for layer in self.layers:
            hidden = layer(hidden, attend)
        hidden = self.layer_norm(hidden)
        pooled = F.avg_pool1d(rearrange(hidden, "B T D -> B D T"), 3, 3)
        return rearrange(pooled, "B D T -> B T D")
