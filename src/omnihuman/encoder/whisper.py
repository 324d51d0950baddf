"""Whisper's encoder: log-mel hops -> one token per 60 ms."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import check_sizes, load_report
from omnihuman.nn.rows import on_real
from omnihuman.types import Features, Layout, Signal

SAMPLE_RATE, WINDOW, HOP = 16000, 400, 160
HOPS = 6
"""Hops of 10 ms that become one token: a convolution of stride 2, then pooling by 3."""
SILENCE = -1.5
"""What the log-mel of no sound at all is everywhere: (log10 1e-10 + 4) / 4."""


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
        samples: longer sound is cut here.
        fill: shorter sound is followed by silence up to there.

    >>> LogMel(80)(torch.zeros(16000)).shape
    torch.Size([102, 80])
    """

    num_bins: int
    samples: int = 30 * SAMPLE_RATE
    fill: bool = False

    def __call__(self, waveform: Float[Tensor, " S"]) -> Float[Tensor, "T M"]:
        if not len(waveform):
            raise ValueError("the waveform has no samples: a sample without sound has no waveform at all.")
        waveform = waveform[: self.samples]
        hops = HOPS * math.ceil((self.samples if self.fill else len(waveform)) / (HOP * HOPS))
        # silence follows, as it does in the 30 s window of the official extractor
        whole = F.pad(waveform, (0, hops * HOP - len(waveform)))[None]
        # where that window ends, the extractor reflects
        ends = (WINDOW // 2, WINDOW // 2 if self.fill else 0)
        padded = F.pad(F.pad(whole, ends, mode="reflect")[0], (0, WINDOW // 2 - ends[1]))
        spectrum = torch.stft(padded, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True)
        power = spectrum[:, :hops].abs() ** 2
        mel = (power.T @ _filters(self.num_bins)).clamp(min=1e-10).log10()
        return (mel.clamp(min=mel.max() - 8.0) + 4.0) / 4.0


class Whisper(Encoder):
    """Log-mel hops ``[B T M]`` -> tokens ``[B T/6 1 D]``: Whisper's encoder, then average pooling by 3.

    Reference: paper §4.2 (25/10 ms, 128 bins, pooling 3, one token per 60 ms) and HumanOmni's audio tower.
    Differs from the official code, whose clips always become 500 tokens (``keep="window"``): the tokens of the silence
    behind a clip are hidden, and with ``window_seconds=None`` they are never computed.

    Args:
        weights: folder or hub id; ``null`` builds the sizes at random.
        num_mel_bins: mel bins M.
        d_model: width D of a token.
        encoder_layers: blocks.
        encoder_attention_heads: heads of a block.
        encoder_ffn_dim: width inside a block.
        window_seconds: silence is added up to here before encoding, as Whisper was trained; ``null`` encodes the true
            length. Longer sound is cut here, or at Whisper's 30 s.
        keep: ``true_length``, or ``window`` for the tokens of the whole window.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or the window is none of Whisper's.

    >>> ears = Whisper(num_mel_bins=80, d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32,
    ...                window_seconds=None)
    >>> ears(Signal(torch.zeros(2, 12, 80), torch.ones(2, 12, dtype=torch.bool))).tokens.shape
    torch.Size([2, 2, 1, 16])
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
            raise ValueError("whisper: keep='window' keeps the tokens of a window: give window_seconds.")
        if window_seconds is not None and not (0 < window_seconds <= 30 and round(window_seconds * 1000) % 60 == 0):
            raise ValueError(
                f"whisper: window_seconds {window_seconds} must be whole tokens of 0.06 s, at most Whisper's 30."
            )
        if weights is None:
            model = WhisperEncoder(WhisperConfig(**sizes))
        else:
            check_sizes(weights, WhisperConfig.from_pretrained(weights), sizes)
            model, info = WhisperEncoder.from_pretrained(
                weights, key_mapping={r"^(model\.)?encoder\.": ""}, dtype=torch.float32, output_loading_info=True
            )
            load_report(weights, info, dropped=("*decoder.*", "proj_out.*"))
        self.conv1, self.conv2, self.embed_positions = model.conv1, model.conv2, model.embed_positions
        self.layers, self.layer_norm = model.layers, model.layer_norm
        self.out_dim, self.num_bins = d_model, num_mel_bins
        self.window = None if window_seconds is None else round(window_seconds * SAMPLE_RATE / HOP)
        longest = (self.window or 3000) * HOP
        self.transform: LogMel = LogMel(num_mel_bins, longest, fill=keep == "window")

    def layout(self, amount: int) -> Layout:
        longest = self.transform.samples
        return Layout(math.ceil((longest if self.transform.fill else min(amount, longest)) / (HOP * HOPS)), 1)

    def forward(self, signal: Signal) -> Features:
        kept = signal.mask[:, ::HOPS]
        with self.graph():
            mel, mask = self._padded(signal.values, signal.mask)
            size, dtype = (kept.shape[1], self.out_dim), self.conv1.weight.dtype
            tokens = on_real(
                lambda rows: self._read(mel[rows], mask[rows])[:, : kept.shape[1]], kept.any(dim=1), size, dtype
            )
            tokens = tokens.masked_fill(~kept[..., None], 0)
        return Features.of(tokens.unsqueeze(2), kept)

    def _padded(self, mel: Tensor, mask: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        """Whole tokens, or the whole window with each row's own silence behind its sound."""
        length = self.window or HOPS * math.ceil(mel.shape[1] / HOPS)
        mel, mask = F.pad(mel, (0, 0, 0, length - mel.shape[1])), F.pad(mask, (0, length - mask.shape[1]))
        if self.window is None:  # zeros, which is what the convolution sees behind a row that stands alone
            return mel.masked_fill(~mask[..., None], 0), mask
        # the extractor raises all to 8 below the loudest, which scaled by 4 is 2 below
        loudest = mel.masked_fill(~mask[..., None], -torch.inf).amax(dim=(1, 2), keepdim=True)
        return torch.where(mask[..., None], mel, (loudest - 2).clamp(min=SILENCE)), mask

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
