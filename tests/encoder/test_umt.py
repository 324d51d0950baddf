"""UMT: clips of any length with invalid frames in one pass; weights of every official layout load or raise."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from omnihuman.build import build, compose_part
from omnihuman.encoder import umt
from omnihuman.encoder.umt import UMT
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Layout, Signal

SIZES: dict[str, Any] = {
    "patch_size": 4,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "table_frames": 4,
    "table_side": 2,
}
MASK = [
    [1, 1, 1, 1, 1, 1, 1, 1],
    [0, 1, 0, 1, 1, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [1, 1, 1, 0, 0, 0, 0, 0],
]
"""All frames, gaps, no frame, a single frame, a shorter clip."""


@pytest.fixture(scope="module")
def encoder() -> UMT:
    torch.manual_seed(0)
    encoder = UMT(**SIZES, image_size=8).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.requires_grad_(False)


@pytest.fixture
def trainable(encoder: UMT) -> UMT:
    return copy_with(encoder)


def copy_with(encoder: UMT, **options: Any) -> UMT:
    """Build an encoder of the same weights with other options."""
    copy = UMT(**SIZES | {"image_size": 8} | options)
    copy.load_state_dict(encoder.state_dict())
    return copy


def draw_frames(num_clips: int, count: int = 8, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_clips, count, 3, 8, 8), dtype=torch.uint8, generator=random)


def ragged(padding_seed: int = 0) -> Signal:
    """Clips of several lengths; the seed draws the invalid frames."""
    mask = torch.tensor(MASK, dtype=torch.bool)
    padding = draw_frames(len(MASK), seed=padding_seed)
    return Signal(torch.where(mask[..., None, None, None], draw_frames(len(MASK)), padding), mask)


def test_clip_equals_its_valid_frames_alone(encoder: UMT) -> None:
    signal = ragged()
    features = encoder(signal)
    assert features.grid == (2, 2) and features.tokens.shape == (len(MASK), 8, 4, 16) and features.levels == ()
    for sample, (values, mask) in enumerate(zip(signal.values, signal.mask, strict=True)):
        assert torch.equal(features.mask[sample].all(-1), mask) and not features.tokens[sample, ~mask].any()
        if mask.any():
            alone = encoder(Signal(values[mask][None], torch.ones(1, int(mask.sum()), dtype=torch.bool)))
            torch.testing.assert_close(features.tokens[sample, mask], alone.tokens[0])


def test_invalid_frames_change_nothing(encoder: UMT) -> None:
    assert torch.equal(encoder(ragged(padding_seed=1)).tokens, encoder(ragged(padding_seed=2)).tokens)


def test_every_frame_attends_to_every_other(encoder: UMT) -> None:
    signal = Signal(draw_frames(1), torch.ones(1, 8, dtype=torch.bool))
    changed = signal.values.clone()
    changed[0, 7] = 255 - changed[0, 7]
    difference = encoder(signal).tokens - encoder(Signal(changed, signal.mask)).tokens
    assert (difference.abs().amax(dim=(0, 2, 3)) > 1e-4).all()


def test_levels_are_states_of_their_blocks(encoder: UMT) -> None:
    """A shorter encoder without its last norm has the level as its tokens."""
    signal = ragged()
    features = copy_with(encoder, levels=[1, 2]).eval()(signal)
    assert torch.equal(features.tokens, encoder(signal).tokens)
    for level, block in zip(features.levels, (1, 2), strict=True):
        shorter = UMT(**SIZES, image_size=8, select_layer=block).eval()
        shorter.load_state_dict(encoder.state_dict(), strict=False)
        shorter.vision_layernorm = torch.nn.Identity()  # type: ignore[assignment]
        assert torch.equal(level.tokens, shorter(signal).tokens)
        assert torch.equal(level.mask, features.mask) and level.grid == (2, 2)


def test_levels_have_widths_and_layouts() -> None:
    encoder = UMT(**SIZES, image_size=8, levels=2)
    level = Layout(3, 4, (2, 2))
    assert encoder.level_blocks == (1, 2) and encoder.level_dims == (16, 16)
    assert encoder.layout(3) == level._replace(levels=(level, level))
    with pytest.raises(ValueError, match=r"umt: levels=\[3\].*ascending.* 1 to 2\b"):
        UMT(**SIZES, image_size=8, levels=[3])


def test_levels_of_recomputed_blocks_have_gradients(encoder: UMT) -> None:
    gradients = []
    for recomputed in (0, 2):
        trainable = copy_with(encoder, levels=[1], grad_checkpointing=recomputed)
        trainable(ragged()).levels[0].tokens.square().sum().backward()
        gradients.append(trainable.blocks[0].mlp["fc1"].weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_levels_preset_is_spread_over_the_official_size() -> None:
    with torch.device("meta"):
        encoder = build(compose_part("encoder", "umt_levels", ["+random_weights=true"], "7b"))
    assert encoder.level_blocks == (5, 11, 17, 23)


def test_clips_of_all_lengths_run_in_one_pass(encoder: UMT) -> None:
    """Under FSDP2 each call of a block gathers its shards, so all ranks must call it equally often."""
    calls = []
    hook = encoder.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    encoder(ragged())
    hook.remove()
    assert len(calls) == 1


def test_batch_without_frames_has_zero_gradients(trainable: UMT) -> None:
    features = trainable(Signal(draw_frames(2), torch.zeros(2, 8, dtype=torch.bool)))
    assert not features.tokens.any() and not features.mask.any()
    features.tokens.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in trainable.parameters())


def test_frozen_encoder_without_frames_runs_nothing(encoder: UMT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_encode", lambda *_: pytest.fail("ran"))
    assert not encoder(Signal(draw_frames(1), torch.zeros(1, 8, dtype=torch.bool))).tokens.any()


def test_recomputed_blocks_have_the_same_gradients(trainable: UMT) -> None:
    gradients, calls = [], []
    for block in trainable.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    for recomputed in (0, 1):
        trainable.grad_checkpointing = recomputed
        trainable.zero_grad()
        calls.clear()
        trainable(ragged()).tokens.square().sum().backward()
        assert len(calls) == 2 + recomputed
        gradients.append([parameter.grad for parameter in trainable.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_weights_fit_any_grid_and_number_of_frames(encoder: UMT) -> None:
    large = copy_with(encoder, image_size=12).eval()
    for count in (1, 3, 9, 33):
        frames = torch.zeros(1, count, 3, 12, 12, dtype=torch.uint8)
        features = large(Signal(frames, torch.ones(1, count, dtype=torch.bool)))
        assert features.tokens.shape == (1, count, 9, 16) and features.tokens.isfinite().all()
        assert large.layout(count) == Layout(count, 9, (3, 3))


def test_positions_cached_in_inference_mode_work_in_training(trainable: UMT) -> None:
    umt.compute_positions.cache_clear()
    with torch.inference_mode():
        trainable(ragged())
    trainable(ragged()).tokens.sum().backward()


def test_normalize_changes_the_colors(encoder: UMT) -> None:
    clip = copy_with(encoder, normalize="clip").eval()
    assert not torch.allclose(clip(ragged()).tokens, encoder(ragged()).tokens, atol=1e-3)


def test_transform_squashes_and_is_picklable() -> None:
    transform = UMT(**SIZES, image_size=8).transform
    assert pickle.loads(pickle.dumps(transform)) == transform == SquareFrames(8, "squash")
    assert transform(torch.zeros(1, 3, 30, 20, dtype=torch.uint8)).shape == (1, 3, 8, 8)


def test_reads_is_an_option() -> None:
    assert UMT(**SIZES, image_size=8).sample_fields == ("frames", "faces")


@pytest.mark.parametrize("layer", [-4, 0, 4])
def test_unknown_select_layer_raises(layer: int) -> None:
    with pytest.raises(ValueError, match=f"select_layer {layer} "):
        UMT(**SIZES, image_size=8, select_layer=layer)


def test_official_size() -> None:
    with torch.device("meta"):
        encoder = build(compose_part("encoder", "umt", ["+random_weights=true"], "7b"))
    assert (len(encoder.blocks), encoder.out_dim, encoder.grid) == (23, 1024, (14, 14))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 290_479_104
    # 2 of the patch embedding and 13 of each block, then 2 of vision_layernorm
    assert len(encoder.state_dict()) == 301 + 2


# -------------------------------------------------------------------------------------------------- weights


def save_folder(encoder: UMT, folder: Path, **changes: int) -> str:
    """Save the encoder under our names in half precision, with changed sizes in its config."""
    save_file({key: x.half() for key, x in encoder.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES | changes))
    return str(folder)


def is_equal(encoder: UMT, expected: UMT, atol: float = 0.0) -> bool:
    left, right = encoder.state_dict(), expected.state_dict()
    return left.keys() == right.keys() and all(torch.allclose(left[key], right[key], atol=atol) for key in left)


def test_folder_of_our_names_loads(encoder: UMT, tmp_path: Path) -> None:
    loaded = UMT(**SIZES, image_size=12, weights=save_folder(encoder, tmp_path))
    assert is_equal(loaded, encoder, atol=1e-3)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def test_other_size_than_the_weights_raises(encoder: UMT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table_side: 2 .*\b14\b"):
        UMT(**SIZES, image_size=8, weights=save_folder(encoder, tmp_path, table_side=14))


def test_block_missing_in_the_folder_raises(encoder: UMT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\b13 missing .*blocks\.2\."):
        UMT(**SIZES, image_size=8, select_layer=-1, weights=save_folder(encoder, tmp_path))


def test_folder_that_is_not_converted_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"convert official=umt path=.* out={tmp_path}"):
        UMT(**SIZES, image_size=8, weights=str(tmp_path))
