"""Whisper's encoder: log-mel hops -> one token per 60 ms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import check_report, check_sizes
from omnihuman.nn.deferred import load_pretrained
from omnihuman.nn.finite import check_parameters
from omnihuman.nn.masking import run_on_valid
from omnihuman.types import Features, Layout, Signal

SAMPLE_RATE, WINDOW, HOP = 16000, 400, 160
HOPS = 6
"""Hops of 10 ms per token: a convolution of stride 2, then pooling by 3."""
TOKEN = HOP * HOPS
"""Waveform samples per token."""
MAX_HOPS = 3000
"""Hops of Whisper's window of 30 s."""
SILENCE = -1.5
"""Log-mel value of digital silence: (log10 1e-10 + 4) / 4."""


@lru_cache
def _filters(num_bins: int) -> Tensor:
    bank = mel_filter_bank(1 + WINDOW // 2, num_bins, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float()


@dataclass(frozen=True)
class LogMel:
    """A 16 kHz waveform ``[S]`` -> its log-mel spectrogram ``[T M]``, padded to a multiple of one token (60 ms).

    A waveform of more than a window is cut into windows, whose spectrograms follow one another.

    Reference: WhisperFeatureExtractor (25 ms window, 10 ms hop); equal to it on the hops that both compute.

    Attributes:
        num_bins: mel bins M.
        window_samples: waveform samples of a window, a multiple of those of a token.
        pad: pad shorter waveforms, and the last window of longer ones, with silence to a window.

    >>> LogMel(80)(torch.zeros(16000)).shape
    torch.Size([102, 80])
    """

    num_bins: int
    window_samples: int = 30 * SAMPLE_RATE
    pad: bool = False

    def __call__(self, waveform: Float[Tensor, " S"]) -> Float[Tensor, "T M"]:
        if not len(waveform):
            raise ValueError("whisper: the waveform has no samples; a sample without audio must have no waveform.")
        return torch.cat([self._transform(window) for window in torch.split(waveform, self.window_samples)])

    def count_tokens(self, num_samples: int) -> int:
        """Return the tokens of a waveform."""
        num_windows, rest = divmod(num_samples, self.window_samples)
        if self.pad and rest:
            num_windows, rest = num_windows + 1, 0
        return num_windows * self.window_samples // TOKEN + math.ceil(rest / TOKEN)

    def _transform(self, waveform: Float[Tensor, " S"]) -> Float[Tensor, "T M"]:
        length = self.window_samples if self.pad else len(waveform)
        hops = HOPS * math.ceil(length / TOKEN)
        # silence follows, as in the 30 s window of the official extractor
        waveform = F.pad(waveform, (0, hops * HOP - len(waveform)))
        # the official extractor reflects the waveform at both ends of its 30 s window. A shorter result does not reach
        # the end of that window: there its last frames extend into silence.
        end = "reflect" if self.pad or length == MAX_HOPS * HOP else "constant"
        half = WINDOW // 2
        waveform = F.pad(F.pad(waveform[None], (half, 0), mode="reflect"), (0, half), mode=end)[0]
        window = torch.hann_window(WINDOW)
        spectrum = torch.stft(waveform, WINDOW, HOP, window=window, center=False, return_complex=True)
        power = spectrum[:, :hops].abs() ** 2
        mel = (power.T @ _filters(self.num_bins)).clamp(min=1e-10).log10()
        return (mel.clamp(min=mel.max() - 8.0) + 4.0) / 4.0


class Whisper(Encoder):
    """Log-mel hops ``[B T M]`` -> tokens ``[B T/6 1 D]``: Whisper's encoder, then average pooling by 3.

    Reference: paper §4.2 (25/10 ms, 128 bins, pooling 3, one token per 60 ms) and HumanOmni's audio tower.
    Differs from the official code, where every clip has 500 tokens (``keep="window"``): the tokens of the silence after
    a clip are masked, and with ``window_seconds=None`` they are not computed.

    Args:
        weights: folder or hub id; ``null`` initializes the sizes at random.
        num_mel_bins: mel bins M.
        d_model: width D of a token.
        encoder_layers: blocks.
        encoder_attention_heads: heads of a block.
        encoder_ffn_dim: width of the hidden layer of a block.
        window_seconds: audio is padded with silence to this length, as in Whisper's training; ``null`` encodes the true
            length. Longer audio is encoded in windows of this length, or of Whisper's 30 s.
        keep: ``true_length`` for the tokens of the clip, ``window`` for those of the padded window.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or the window is invalid.

    >>> encoder = Whisper(num_mel_bins=80, d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32,
    ...                   window_seconds=None)
    >>> encoder(Signal(torch.zeros(2, 12, 80), torch.ones(2, 12, dtype=torch.bool))).tokens.shape
    torch.Size([2, 2, 1, 16])
    """

    sample_fields = ("waveform",)

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
        if keep == "window" and window_seconds is None:
            raise ValueError("whisper: keep=window needs a window; set window_seconds.")
        sizes = {
            "num_mel_bins": num_mel_bins,
            "d_model": d_model,
            "encoder_layers": encoder_layers,
            "encoder_attention_heads": encoder_attention_heads,
            "encoder_ffn_dim": encoder_ffn_dim,
        }
        self.window = _count_hops(window_seconds)
        model = _build_model(weights, sizes)
        self.conv1, self.conv2, self.embed_positions = model.conv1, model.conv2, model.embed_positions
        self.layers, self.layer_norm = model.layers, model.layer_norm
        self.out_dim, self.num_bins = d_model, num_mel_bins
        self.transform: LogMel = LogMel(num_mel_bins, (self.window or MAX_HOPS) * HOP, pad=keep == "window")

    def layout(self, amount: int) -> Layout:
        return Layout(self.transform.count_tokens(amount), 1)

    def forward(self, signal: Signal) -> Features:
        valid = signal.mask[:, ::HOPS]
        with self.graph():
            mel, mask = self._split_windows(signal.values, signal.mask)
            num_tokens = math.ceil(mel.shape[1] / HOPS)  # of a window
            mel, mask = self._pad(mel, mask)
            windows = run_on_valid(
                lambda index: self._encode(mel[index], mask[index])[:, :num_tokens],
                mask[:, ::HOPS].any(dim=1),
                (num_tokens, self.out_dim),
                self.conv1.weight.dtype,
            )
            tokens = rearrange(windows, "(B W) T D -> B (W T) D", B=len(valid))[:, : valid.shape[1]]
            tokens = tokens.masked_fill(~valid[..., None], 0)
        return Features.of(tokens.unsqueeze(2), valid)

    def _split_windows(self, mel: Tensor, mask: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        """Return the windows of long audio as a batch, ``[(B W) T M]`` and ``[(B W) T]``."""
        window = self.window or MAX_HOPS
        num_windows = math.ceil(mel.shape[1] / window)
        if num_windows == 1:
            return mel, mask
        rest = num_windows * window - mel.shape[1]
        mel, mask = F.pad(mel, (0, 0, 0, rest)), F.pad(mask, (0, rest))
        return rearrange(mel, "B (W T) M -> (B W) T M", T=window), rearrange(mask, "B (W T) -> (B W) T", T=window)

    def _pad(self, mel: Tensor, mask: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        """Pad to a multiple of one token, or to the window with silence after the audio of each sample."""
        length = self.window or HOPS * math.ceil(mel.shape[1] / HOPS)
        mel, mask = F.pad(mel, (0, 0, 0, length - mel.shape[1])), F.pad(mask, (0, length - mask.shape[1]))
        if self.window is None:  # zeros, as the convolution pads a sample that is encoded alone
            return mel.masked_fill(~mask[..., None], 0), mask
        # the extractor clamps to 8 below the loudest value, before it adds 4 and divides by 4: here 2 below
        loudest = mel.masked_fill(~mask[..., None], -torch.inf).amax(dim=(1, 2), keepdim=True)
        return torch.where(mask[..., None], mel, (loudest - 2).clamp(min=SILENCE)), mask

    def _encode(self, mel: Tensor, mask: Tensor) -> Tensor:
        mel = rearrange(mel.to(self.conv1.weight.dtype), "B T M -> B M T")
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(mel))))
        hidden = rearrange(hidden, "B D T -> B T D")
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        attention_mask = None
        if self.window is None:
            attention_mask = mask[:, None, None, ::2].clone()
            attention_mask[..., 0] = True  # a sample without audio: a softmax over no key is nan
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        hidden = self.layer_norm(hidden)
        tokens = F.avg_pool1d(rearrange(hidden, "B T D -> B D T"), 3, 3)
        return rearrange(tokens, "B D T -> B T D")


def _count_hops(window_seconds: float | None) -> int | None:
    """Return the hops of the window.

    Raises:
        ValueError: the window is not a multiple of one token, or longer than Whisper's.
    """
    if window_seconds is None:
        return None
    if not 0 < window_seconds <= 30 or round(window_seconds * 1000) % 60:
        raise ValueError(f"whisper: window_seconds={window_seconds}; expected a multiple of 0.06 s, at most 30 s.")
    return round(window_seconds * SAMPLE_RATE / HOP)


def _build_model(weights: str | None, sizes: Mapping[str, Any]) -> WhisperEncoder:
    if weights is None:
        return WhisperEncoder(WhisperConfig(**sizes))
    check_sizes(weights, WhisperConfig.from_pretrained(weights), sizes)
    model, report = load_pretrained(
        WhisperEncoder.from_pretrained,
        weights,
        key_mapping={r"^(model\.)?encoder\.": ""},
        dtype=torch.float32,
        output_loading_info=True,
    )
    check_report(weights, report, dropped=("*decoder.*", "proj_out.*"))
    check_parameters(weights, model)
    return model
