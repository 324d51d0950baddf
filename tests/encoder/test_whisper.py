"""Whisper: the log-mel equals the official extractor's, and the tokens equal transformers'."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnihuman.encoder.whisper import LogMel, Whisper
from omnihuman.types import Layout, Signal

SIZES: dict[str, Any] = {
    "num_mel_bins": 80,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "vocab_size": 9}
CONFIG = WhisperConfig(**SIZES, **IDS, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8)


def draw_waveform(num_samples: int, seed: int = 0) -> Tensor:
    noise = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))
    return 0.2 * noise * torch.linspace(0.01, 1, num_samples)


def official_mel(waveform: Tensor, bins: int = 80) -> Tensor:
    """Compute the features of WhisperFeatureExtractor, ``[3000 M]``."""
    extractor = WhisperFeatureExtractor(feature_size=bins)
    features = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    assert isinstance(features, Tensor)
    return features[0].T


def signal(*mels: Tensor) -> Signal:
    lengths = torch.tensor([len(mel) for mel in mels])
    values = torch.nn.utils.rnn.pad_sequence(list(mels), batch_first=True)
    return Signal(values, torch.arange(values.shape[1]) < lengths[:, None])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whisper")
    model = WhisperModel(CONFIG)
    torch.nn.init.normal_(model.encoder.conv1.weight, std=0.3)
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", [1, 150, 959, 961, 16000, 23999, 100_000])
def test_mel_equals_the_official_extractor(samples: int, bins: int) -> None:
    mel = LogMel(bins)(draw_waveform(samples))
    assert mel.shape == (6 * -(-samples // 960), bins)
    torch.testing.assert_close(mel, official_mel(draw_waveform(samples), bins)[: len(mel)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [960, 40_000, 480_000])
def test_padded_mel_equals_the_official_extractor(samples: int) -> None:
    mel = LogMel(80, pad=True)(draw_waveform(samples))
    torch.testing.assert_close(mel, official_mel(draw_waveform(samples)), atol=1e-5, rtol=0)


def test_empty_waveform_raises() -> None:
    with pytest.raises(ValueError, match="no samples"):
        LogMel(80)(torch.zeros(0))


@pytest.mark.parametrize("keep", ["window", "true_length"])
def test_tokens_of_the_window_equal_transformers(folder: Path, keep: Any) -> None:
    """Also for a clip of silence."""
    encoder = Whisper(**SIZES, weights=str(folder), window_seconds=30.0, keep=keep).eval()
    official = WhisperModel.from_pretrained(folder).encoder.eval()
    waveforms = [draw_waveform(40_000), torch.zeros(1000)]
    with torch.no_grad():
        features = encoder(signal(*map(encoder.transform, waveforms)))
        states = official(torch.stack([official_mel(waveform).T for waveform in waveforms])).last_hidden_state
    expected = F.avg_pool1d(states.mT, 3, 3).mT
    for sample, waveform in enumerate(waveforms):
        num_tokens = 500
        if keep == "true_length":
            num_tokens = -(-len(waveform) // 960)
        assert int(features.mask[sample].sum()) == encoder.layout(len(waveform)).num_tokens == num_tokens
        tokens = features.tokens[sample, :num_tokens, 0]
        torch.testing.assert_close(tokens, expected[sample, :num_tokens], atol=1e-5, rtol=1e-4)


def test_tokens_of_the_true_length_equal_transformers(folder: Path) -> None:
    encoder = Whisper(**SIZES, weights=str(folder), window_seconds=None).eval()
    mel = encoder.transform(draw_waveform(24_000))
    shorter = WhisperEncoder(WhisperConfig(**SIZES, **IDS, max_source_positions=len(mel) // 2)).eval()
    state = WhisperModel.from_pretrained(folder).encoder.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][: len(mel) // 2]
    shorter.load_state_dict(state)
    with torch.no_grad():
        states = shorter(mel.T[None]).last_hidden_state
        features = encoder(signal(mel, encoder.transform(draw_waveform(60_000))))
    expected = F.avg_pool1d(states.mT, 3, 3).mT[0]
    torch.testing.assert_close(features.tokens[0, : len(expected), 0], expected, atol=1e-5, rtol=1e-4)
    assert int(features.mask[0].sum()) == len(expected) == 25


def test_complete_whisper_loads(tmp_path: Path) -> None:
    model = WhisperForConditionalGeneration(CONFIG)
    model.save_pretrained(tmp_path)
    state, expected = Whisper(**SIZES, weights=str(tmp_path)).state_dict(), model.model.encoder.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)


def test_missing_parameter_raises(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = load_file(folder / "model.safetensors")
    del state["encoder.layers.1.fc1.bias"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"\b1 missing .*layers\.1\.fc1\.bias"):
        Whisper(**SIZES, weights=str(tmp_path))


@pytest.mark.parametrize("pad", [False, True])
def test_long_mel_is_that_of_each_window(pad: bool) -> None:
    waveform = draw_waveform(2 * 480_000 + 20_000)
    mel = LogMel(80, pad=pad)(waveform)
    for number, window in enumerate(waveform.split(480_000)):
        part = mel[3000 * number : 3000 * (number + 1)]
        torch.testing.assert_close(part, official_mel(window)[: len(part)], atol=1e-5, rtol=0)
    assert len(mel) == 6000 + (3000 if pad else 126)


@pytest.mark.parametrize(
    ("options", "num_tokens"),
    [
        ({}, 1042),
        ({"keep": "window"}, 1500),
        ({"window_seconds": None}, 1042),
        ({"window_seconds": 9.0}, 1042),
        ({"window_seconds": 9.0, "keep": "window"}, 1050),
    ],
)
def test_long_audio_has_the_tokens_of_its_windows(options: Any, num_tokens: int) -> None:
    torch.manual_seed(0)
    encoder = Whisper(**SIZES, **options).eval()
    waveform = draw_waveform(1_000_000)
    windows = waveform.split(encoder.transform.window_samples)
    with torch.no_grad():
        short = draw_waveform(40_000)
        features = encoder(signal(encoder.transform(waveform), encoder.transform(short)))
        alone = [encoder(signal(encoder.transform(window))).tokens[0] for window in windows]
    assert encoder.layout(1_000_000).num_tokens == int(features.mask[0].sum()) == num_tokens
    torch.testing.assert_close(features.tokens[0], torch.cat(alone), atol=1e-5, rtol=1e-4)
    assert int(features.mask[1].sum()) == encoder.layout(40_000).num_tokens
    with torch.no_grad():
        expected = encoder(signal(encoder.transform(short))).tokens[0]
    torch.testing.assert_close(features.tokens[1, : len(expected)], expected, atol=1e-5, rtol=1e-4)
    assert Whisper(**SIZES, window_seconds=None).layout(961) == Layout(2, 1)


def test_missing_window_raises() -> None:
    with pytest.raises(ValueError, match=r"keep=window.*window_seconds"):
        Whisper(**SIZES, window_seconds=None, keep="window")


@pytest.mark.parametrize("seconds", [31.0, 0.05, 0.0])
def test_invalid_window_raises(seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"window_seconds={seconds};.*\b0\.06 s\b"):
        Whisper(**SIZES, window_seconds=seconds)


def test_other_size_than_the_weights_raises(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"d_model: 24 .*\b16\b"):
        Whisper(**SIZES | {"d_model": 24}, weights=str(folder))


def test_transform_is_picklable() -> None:
    transform = Whisper(**SIZES).transform
    assert pickle.loads(pickle.dumps(transform)) == transform
