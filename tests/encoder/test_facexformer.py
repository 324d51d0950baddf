"""FaceXFormer: gaps between faces, levels, a pooled grid, and weights in our layout and the official one."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import swin_b

from omnihuman.build import build, compose_part
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Features, Layout, Signal

SIZES: dict[str, Any] = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 3, "dim": 12}
MASK = [[1, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
"""A gap, no face, a single face at the end."""


@pytest.fixture(scope="module")
def encoder() -> FaceXFormer:
    torch.manual_seed(0)
    return FaceXFormer(**SIZES, image_size=32).requires_grad_(False)


def draw_frames(seed: int = 0) -> Tensor:
    shape = (len(MASK), len(MASK[0]), 3, 32, 32)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def signal() -> Signal:
    return Signal(draw_frames(), torch.tensor(MASK).bool())


def save_folder(encoder: FaceXFormer, folder: Path, **changes: Any) -> str:
    """Save the encoder under our names in half precision."""
    folder.mkdir(exist_ok=True)
    save_file({name: p.detach().half() for name, p in encoder.named_parameters()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES | changes))
    return str(folder)


def all_tokens(features: Features) -> list[Tensor]:
    return [features.tokens, *(level.tokens for level in features.levels)]


def is_equal(features: Features, expected: Features) -> bool:
    return all(map(torch.equal, all_tokens(features), all_tokens(expected)))


def test_levels_and_layout(encoder: FaceXFormer) -> None:
    features = encoder(signal())
    assert encoder.level_dims == (8, 16) and encoder.out_dim == 12
    assert features.grid == (8, 8) and [level.grid for level in features.levels] == [(8, 8), (4, 4)]
    assert [tokens.shape for tokens in all_tokens(features)] == [(3, 4, 64, 12), (3, 4, 64, 8), (3, 4, 16, 16)]
    assert all(torch.equal(level.mask[..., 0], features.mask[..., 0]) for level in features.levels)
    levels = (Layout(4, 64, (8, 8)), Layout(4, 16, (4, 4)))
    assert encoder.layout(4) == Layout(4, 64, (8, 8), levels)


def test_only_valid_frames_run(encoder: FaceXFormer, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, counts = encoder._encode, list[int]()

    def count(frames: Tensor) -> Tensor:
        counts.append(len(frames))
        return encode(frames)

    monkeypatch.setattr(encoder, "_encode", count)
    mask = torch.tensor(MASK).bool()
    features = encoder(signal())
    assert counts == [4]
    other = encoder(Signal(torch.where(mask[..., None, None, None], draw_frames(), draw_frames(1)), mask))
    assert is_equal(features, other)
    alone = encoder(Signal(draw_frames()[2:, 3:], mask[2:, 3:]))
    for tokens, single in zip(all_tokens(features), all_tokens(alone), strict=True):
        assert not tokens[~mask].any()
        torch.testing.assert_close(tokens[2, 3], single[0, 0])


def test_batch_without_faces_has_zero_gradients() -> None:
    encoder = FaceXFormer(**SIZES, image_size=32)
    empty = Signal(draw_frames(), torch.zeros(3, 4, dtype=torch.bool))
    features = encoder(empty)
    assert not any(tokens.any() for tokens in all_tokens(features)) and not features.mask.any()
    features.tokens.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())
    encoder.requires_grad_(False)
    encoder._encode = lambda frames: pytest.fail("ran")  # type: ignore[method-assign, assignment]
    assert not encoder(empty).tokens.any()


def test_gradients_flow_through_the_levels() -> None:
    """A cascade may use the levels without the fused tokens."""
    encoder = FaceXFormer(**SIZES, image_size=32)
    features = encoder(signal())
    torch.cat([level.tokens.flatten() for level in features.levels]).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.features.parameters())


def test_pool_averages_the_grid(encoder: FaceXFormer) -> None:
    pooling = FaceXFormer(**SIZES, image_size=32, pool=4)
    pooling.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        small, large = pooling(signal()), encoder(signal())
    maps = large.tokens.flatten(0, 1).unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    expected = F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2).unflatten(0, (3, 4))
    torch.testing.assert_close(small.tokens, expected)
    assert small.grid == (4, 4) and pooling.layout(2).num_tokens == 32
    assert all(map(torch.equal, all_tokens(small)[1:], all_tokens(large)[1:]))


@pytest.mark.parametrize("pool", [0, 9])
def test_invalid_pool_raises(pool: int) -> None:
    with pytest.raises(ValueError, match=rf"facexformer: pool={pool};.* 1 to 8\b"):
        FaceXFormer(**SIZES, image_size=32, pool=pool)


def test_trainable_encoder_stays_in_eval_mode() -> None:
    encoder = FaceXFormer(**SIZES, image_size=32)
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    encoder(signal()).tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_reads_is_an_option() -> None:
    assert FaceXFormer(**SIZES, image_size=32).sample_fields == ("frames", "faces")


def test_transform_squashes_and_is_picklable(encoder: FaceXFormer) -> None:
    transform = pickle.loads(pickle.dumps(encoder.transform))
    assert transform == SquareFrames(32, "squash")
    assert transform(torch.zeros(2, 3, 40, 20, dtype=torch.uint8)).shape == (2, 3, 32, 32)


def test_official_size_is_swin_b() -> None:
    with torch.device("meta"):
        encoder, swin = build(compose_part("encoder", "facexformer", ["+random_weights=true"], "7b")), swin_b()
    shapes = {name: tensor.shape for name, tensor in swin.features.state_dict().items()}
    assert {name: tensor.shape for name, tensor in encoder.features.state_dict().items()} == shapes
    assert encoder.level_dims == (128, 256, 512, 1024)
    assert [level.num_tokens for level in encoder.layout(1).levels] == [3136, 784, 196, 49]
    assert encoder.layout(1).num_tokens == 196


def test_folder_of_our_names_loads(encoder: FaceXFormer, tmp_path: Path) -> None:
    loaded = FaceXFormer(**SIZES, image_size=32, weights=save_folder(encoder, tmp_path))
    for parameter, expected in zip(loaded.parameters(), encoder.parameters(), strict=True):
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter.half(), expected.half())


def test_other_size_than_the_weights_raises(encoder: FaceXFormer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"depths: \[1, 2\].*\[1, 3\]"):
        FaceXFormer(**SIZES, image_size=32, weights=save_folder(encoder, tmp_path, depths=[1, 3]))


def test_folder_that_is_not_converted_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"convert official=facexformer path=.* out={tmp_path}"):
        FaceXFormer(**SIZES, image_size=32, weights=str(tmp_path))
