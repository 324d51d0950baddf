"""Whisper: sound becomes the extractor's log-mel, log-mel the tokens that transformers gives."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnihuman.encoder.whisper import LogMel, Whisper
from omnihuman.types import Layout, Signal

SIZES: dict[str, Any] = {
    "num_mel_bins": 80, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "vocab_size": 9}
CONFIG = WhisperConfig(**SIZES, **IDS, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8)


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.2 * noise * torch.linspace(0.01, 1, samples)


def official(waveform: torch.Tensor, bins: int = 80) -> torch.Tensor:
    """What WhisperFeatureExtractor makes of it, ``[3000 M]``."""
    extractor = WhisperFeatureExtractor(feature_size=bins)
    features = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    assert isinstance(features, torch.Tensor)
    return features[0].T


def signal(*mels: torch.Tensor) -> Signal:
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
def test_mel_equals_the_extractor(samples: int, bins: int) -> None:
    mel = LogMel(bins)(sound(samples))
    assert mel.shape == (Layout(-(-samples // 960), 6).total, bins)
    torch.testing.assert_close(mel, official(sound(samples), bins)[: len(mel)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [960, 40_000, 480_000, 500_000])
def test_filled_mel_equals_the_extractor_on_the_whole_window(samples: int) -> None:
    mel = LogMel(80, fill=True)(sound(samples))
    torch.testing.assert_close(mel, official(sound(samples)), atol=1e-5, rtol=0)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        LogMel(80)(torch.zeros(0))


@pytest.mark.parametrize("keep", ["window", "true_length"])
def test_window_equals_transformers(folder: Path, keep: Any) -> None:
    """Also for a clip that is nothing but silence."""
    encoder = Whisper(**SIZES, weights=str(folder), window_seconds=30.0, keep=keep).eval()
    theirs = WhisperModel.from_pretrained(folder).encoder.eval()
    waves = [sound(40_000), torch.zeros(1000)]
    with torch.no_grad():
        made = encoder(signal(*(encoder.transform(wave) for wave in waves)))
        states = theirs(torch.stack([official(wave).T for wave in waves])).last_hidden_state
    expected = F.avg_pool1d(states.mT, 3, 3).mT
    for row, wave in enumerate(waves):
        tokens = encoder.layout(len(wave)).total
        assert int(made.mask[row].sum()) == tokens == (500 if keep == "window" else -(-len(wave) // 960))
        torch.testing.assert_close(made.tokens[row, :tokens, 0], expected[row, :tokens], atol=1e-5, rtol=1e-4)


def test_true_length_equals_transformers_on_that_length(folder: Path) -> None:
    encoder = Whisper(**SIZES, weights=str(folder), window_seconds=None).eval()
    mel = encoder.transform(sound(24_000))
    short = WhisperEncoder(WhisperConfig(**SIZES, **IDS, max_source_positions=len(mel) // 2)).eval()
    short.load_state_dict(
        {name: value[: len(mel) // 2] if name == "embed_positions.weight" else value
         for name, value in WhisperModel.from_pretrained(folder).encoder.state_dict().items()}
    )  # fmt: skip
    with torch.no_grad():
        states = short(mel.T[None]).last_hidden_state
        made = encoder(signal(mel, encoder.transform(sound(60_000))))
    expected = F.avg_pool1d(states.mT, 3, 3).mT[0]
    torch.testing.assert_close(made.tokens[0, : len(expected), 0], expected, atol=1e-5, rtol=1e-4)
    assert int(made.mask[0].sum()) == len(expected) == 25


def test_reads_a_whole_whisper(tmp_path: Path) -> None:
    whole = WhisperForConditionalGeneration(CONFIG)
    whole.save_pretrained(tmp_path)
    encoder = Whisper(**SIZES, weights=str(tmp_path))
    ours, theirs = encoder.state_dict(), whole.model.encoder.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_truncated_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    lost = next(key for key in state if key.endswith("encoder.layers.1.fc1.bias"))
    save_file({key: x for key, x in state.items() if key != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit the encoder: 1 missing .such as layers\.1\.fc1\.bias"):
        Whisper(**SIZES, weights=str(tmp_path))


def test_layout_is_capped() -> None:
    assert Whisper(**SIZES).layout(10**6) == Layout(500, 1)
    assert Whisper(**SIZES, window_seconds=None).layout(961) == Layout(2, 1)
    ten = Whisper(**SIZES, window_seconds=9.0)
    assert ten.layout(10**6) == Layout(150, 1)
    assert len(ten.transform(sound(200_000))) == 900


def test_wrong_windows_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="give window_seconds"):
        Whisper(**SIZES, window_seconds=None, keep="window")
    for seconds in (31.0, 0.05, 0.0):
        with pytest.raises(ValueError, match=f"window_seconds {seconds} must be whole tokens"):
            Whisper(**SIZES, window_seconds=seconds)
    with pytest.raises(ValueError, match="d_model: 24 here, 16 there"):
        Whisper(**SIZES | {"d_model": 24}, weights=str(folder))


def test_transform_goes_to_workers() -> None:
    transform = Whisper(**SIZES).transform
    assert pickle.loads(pickle.dumps(transform)) == transform
