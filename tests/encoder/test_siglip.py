"""SigLIP: frames are resized like PIL's, and tokens and levels equal the hidden states of transformers."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from omnihuman.build import build, compose_part
from omnihuman.data.feature_store import FeatureStore
from omnihuman.encoder.siglip import SigLIP
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Layout, Signal

SIZES: dict[str, Any] = {
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}


def draw_frames(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def signal(frames: Tensor) -> Signal:
    return Signal(frames[None], torch.ones(1, len(frames), dtype=torch.bool))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SiglipVisionModel]:
    """The folder of an official vision encoder with its head, and the encoder."""
    torch.manual_seed(0)
    model = SiglipVisionModel(SiglipVisionConfig(**SIZES)).eval()
    folder = str(tmp_path_factory.mktemp("siglip"))
    model.save_pretrained(folder)
    return folder, model


@torch.no_grad()
def hidden_states(model: SiglipVisionModel) -> tuple[Tensor, ...]:
    states = model(draw_frames() / 127.5 - 1, output_hidden_states=True).hidden_states
    assert isinstance(states, tuple)
    return states


@pytest.mark.parametrize("layer", [-1, -2, -3, 2])
def test_tokens_equal_the_hidden_state_of_transformers(official: tuple[str, SiglipVisionModel], layer: int) -> None:
    folder, model = official
    encoder = SigLIP(**SIZES, weights=folder, select_layer=layer).eval()
    with torch.no_grad():
        features = encoder(signal(draw_frames()))
    torch.testing.assert_close(features.tokens[0], hidden_states(model)[layer], atol=1e-6, rtol=1e-5)
    assert features.grid == (2, 2) and features.levels == ()
    assert len(encoder.layers) == range(5)[layer]
    assert not [name for name in encoder.state_dict() if "post_layernorm" in name or "head." in name]


@torch.no_grad()
def test_levels_equal_the_hidden_states_of_transformers(official: tuple[str, SiglipVisionModel]) -> None:
    folder, model = official
    encoder = SigLIP(**SIZES, weights=folder, levels=[1, 3]).eval()
    features = encoder(signal(draw_frames()))
    for level, block in zip(features.levels, (1, 3), strict=True):
        torch.testing.assert_close(level.tokens[0], hidden_states(model)[block], atol=1e-6, rtol=1e-5)
        assert level.grid == (2, 2) and level.mask.all()
    assert encoder.level_dims == (16, 16)
    level_layout = Layout(3, 4, (2, 2))
    assert encoder.layout(3) == level_layout._replace(levels=(level_layout, level_layout))
    plain = SigLIP(**SIZES, weights=folder).eval()
    assert torch.equal(plain(signal(draw_frames())).tokens, features.tokens)


@torch.no_grad()
def test_levels_of_invalid_frames_are_masked() -> None:
    encoder = SigLIP(**SIZES, levels=2).eval()
    mask = torch.tensor([[True, False, True]])
    features = encoder(Signal(draw_frames()[None], mask))
    for level in features.levels:
        assert torch.equal(level.mask, features.mask) and not level.tokens[~level.mask].any()
    alone = encoder(signal(draw_frames()[2:]))
    torch.testing.assert_close(features.levels[0].tokens[0, 2], alone.levels[0].tokens[0, 0])


def test_gradients_flow_through_the_levels() -> None:
    encoder = SigLIP(**SIZES, levels=[1, 2])
    features = encoder(signal(draw_frames()))
    torch.stack([level.tokens for level in features.levels]).square().sum().backward()
    gradients = [layer.mlp.fc1.weight.grad for layer in encoder.layers]
    assert gradients[0].any() and gradients[1].any() and not gradients[2].any()


@torch.no_grad()
def test_stored_levels_equal_computed_levels(tmp_path: Path) -> None:
    features = SigLIP(**SIZES, levels=2).eval()(signal(draw_frames()))
    store = FeatureStore(tmp_path)
    store.save("0" * 64, features, [0.0, 1.0, 2.0])
    entry = store.load("0" * 64)
    assert entry is not None
    loaded, _ = entry
    assert torch.equal(loaded.tokens, features.tokens)
    for level, expected in zip(loaded.levels, features.levels, strict=True):
        assert torch.equal(level.tokens, expected.tokens) and level.grid == expected.grid


@pytest.mark.parametrize(("size", "blocks"), [("7b", (6, 13, 19, 26)), ("0_5b", (2, 5, 8, 11)), ("nano", (1, 2, 3, 4))])
def test_levels_preset_is_spread_over_every_size(size: str, blocks: tuple[int, ...]) -> None:
    config = compose_part("encoder", "siglip_levels", size=size)
    config.weights = None
    with torch.device("meta"):
        encoder = build(config)
    assert encoder.level_blocks == blocks


def test_complete_siglip_loads(tmp_path: Path) -> None:
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 99,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = SiglipModel(SiglipConfig(vision_config=SIZES, text_config=text))
    model.save_pretrained(tmp_path)
    encoder = SigLIP(**SIZES, weights=str(tmp_path))
    expected = model.vision_model.state_dict()
    assert torch.equal(encoder.embeddings.patch_embedding.weight, expected["embeddings.patch_embedding.weight"])
    assert torch.equal(encoder.layers[2].mlp.fc1.weight, expected["encoder.layers.2.mlp.fc1.weight"])


def copy_folder(folder: str, target: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> str:
    """Copy a folder of weights with a changed state dict."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    save_file(change(load_file(target / "model.safetensors")), target / "model.safetensors", metadata={"format": "pt"})
    return str(target)


def test_older_names_of_the_hub_load(official: tuple[str, SiglipVisionModel], tmp_path: Path) -> None:
    def add_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"vision_model.{key}": value for key, value in state.items()}

    older = copy_folder(official[0], tmp_path, add_prefix)
    assert "vision_model.embeddings.patch_embedding.weight" in load_file(tmp_path / "model.safetensors")
    state, expected = SigLIP(**SIZES, weights=older).state_dict(), SigLIP(**SIZES, weights=official[0]).state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


@pytest.mark.parametrize("missing", ["embeddings.position_embedding.weight", "encoder.layers.2.mlp.fc1.bias"])
def test_missing_parameter_raises(official: tuple[str, SiglipVisionModel], tmp_path: Path, missing: str) -> None:
    def remove(state: dict[str, Tensor]) -> dict[str, Tensor]:
        del state[missing]
        return state

    folder = copy_folder(official[0], tmp_path, remove)
    with pytest.raises(ValueError, match=rf"\b1 missing .*{missing}"):
        SigLIP(**SIZES, weights=folder)


def test_unknown_parameter_raises(official: tuple[str, SiglipVisionModel], tmp_path: Path) -> None:
    folder = copy_folder(official[0], tmp_path, lambda state: state | {"adapter.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"\b1 unknown .*adapter\.weight"):
        SigLIP(**SIZES, weights=folder)


def test_other_size_than_the_weights_raises(official: tuple[str, SiglipVisionModel]) -> None:
    with pytest.raises(ValueError, match=r"hidden_size: 24 .*\b16\b"):
        SigLIP(**SIZES | {"hidden_size": 24}, weights=official[0])


@pytest.mark.parametrize("layer", [-5, 0, 5])
def test_unknown_select_layer_raises(layer: int) -> None:
    with pytest.raises(ValueError, match=f"select_layer {layer} "):
        SigLIP(**SIZES, select_layer=layer)


def test_level_above_the_selected_block_raises() -> None:
    with pytest.raises(ValueError, match=r"siglip: levels=\[4\].*ascending.* 1 to 3\b"):
        SigLIP(**SIZES, levels=[4])


def test_padding_is_gray_and_centered() -> None:
    wide = torch.zeros(2, 3, 10, 21, dtype=torch.uint8)
    square = SquareFrames(21)(wide)
    assert square.shape == (2, 3, 21, 21)
    rows = (square == 127).all(-1).all(1)[0]
    assert rows.nonzero().squeeze(-1).tolist() == [0, 1, 2, 3, 4, 15, 16, 17, 18, 19, 20]
    assert torch.equal(SquareFrames(21)(wide.mT), square.mT)


@pytest.mark.parametrize("shape", [(240, 426), (426, 240), (97, 100), (30, 20), (64, 64)])
@pytest.mark.parametrize("aspect", ["pad", "squash"])
def test_square_frames_equal_pil(shape: tuple[int, int], aspect: Literal["pad", "squash"]) -> None:
    """Training's expand2square with 127, then the image processor's bicubic resize."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)) * 255
    frame = F.interpolate(coarse, shape, mode="bilinear")[0].byte()
    image = Image.fromarray(frame.permute(1, 2, 0).numpy())
    if aspect == "pad":
        square = Image.new("RGB", (max(shape),) * 2, (127, 127, 127))
        square.paste(image, ((max(shape) - shape[1]) // 2, (max(shape) - shape[0]) // 2))
        image = square
    resized = torch.from_numpy(np.array(image.resize((64, 64), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    difference = (SquareFrames(64, aspect)(frame[None])[0].float() - resized.float()).abs()
    assert difference.mean() < 0.01 and difference.max() <= 1


def test_squash_adds_no_padding() -> None:
    wide = torch.full((1, 3, 10, 20), 40, dtype=torch.uint8)
    assert (SquareFrames(28, "squash")(wide) == 40).all()


def test_square_frames_of_the_right_size_are_unchanged() -> None:
    assert torch.equal(SquareFrames(28)(draw_frames()), draw_frames())


def test_transform_is_picklable() -> None:
    transform = SigLIP(**SIZES).transform
    assert pickle.loads(pickle.dumps(transform)) == transform == SquareFrames(28, "pad")


def test_frozen_encoder_without_frames_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SigLIP(**SIZES, levels=2).requires_grad_(False)
    monkeypatch.setattr(encoder, "_encode", lambda frames: pytest.fail("ran"))
    features = encoder(Signal(draw_frames()[None], torch.zeros(1, 3, dtype=torch.bool)))
    assert features.tokens.shape == (1, 3, 4, 16) and not features.tokens.any() and not features.mask.any()
    assert len(features.levels) == 2
