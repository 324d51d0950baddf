"""UMT: clips of any number of frames, with holes, in one pass; weights of every layout or a clear refusal."""

import json
import logging
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
    "patch_size": 4, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "table_frames": 4, "table_side": 2,
}  # fmt: skip
ON = [[1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 0, 0], [0] * 8, [0, 0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 0, 0, 0, 0, 0]]
"""Whole, with holes, without any, a single one, shorter."""


@pytest.fixture(scope="module")
def tower() -> UMT:
    torch.manual_seed(0)
    made = UMT(**SIZES, image_size=8).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False)


@pytest.fixture
def learning(tower: UMT) -> UMT:
    made = UMT(**SIZES, image_size=8)
    made.load_state_dict(tower.state_dict())
    return made


def frames(rows: int, count: int = 8, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, count, 3, 8, 8), dtype=torch.uint8, generator=random)


def ragged(hidden: int = 0) -> Signal:
    mask = torch.tensor(ON, dtype=torch.bool)
    return Signal(torch.where(mask[..., None, None, None], frames(len(ON)), frames(len(ON), seed=hidden)), mask)


def test_a_row_is_its_real_frames_alone(tower: UMT) -> None:
    given = ragged()
    made = tower(given)
    assert made.grid == (2, 2) and made.tokens.shape == (len(ON), 8, 4, 16)
    for row, (values, mask) in enumerate(zip(given.values, given.mask, strict=True)):
        assert torch.equal(made.mask[row].all(-1), mask) and not made.tokens[row, ~mask].any()
        if mask.any():
            alone = tower(Signal(values[mask][None], torch.ones(1, int(mask.sum()), dtype=torch.bool)))
            torch.testing.assert_close(made.tokens[row, mask], alone.tokens[0])


def test_what_the_mask_hides_changes_nothing(tower: UMT) -> None:
    assert torch.equal(tower(ragged(hidden=1)).tokens, tower(ragged(hidden=2)).tokens)


def test_every_frame_counts_for_every_other(tower: UMT) -> None:
    given = Signal(frames(1), torch.ones(1, 8, dtype=torch.bool))
    other = given.values.clone()
    other[0, 7] = 255 - other[0, 7]
    assert ((tower(given).tokens - tower(Signal(other, given.mask)).tokens).abs().amax(dim=(0, 2, 3)) > 1e-4).all()


def test_one_pass_whatever_the_lengths(tower: UMT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under FSDP2 each call of a block gathers its shards, so all ranks have to call it as often."""
    calls = []
    hook = tower.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    tower(ragged())
    hook.remove()
    assert len(calls) == 1


def test_nothing_real_gives_zero_gradients(learning: UMT) -> None:
    made = learning(Signal(frames(2), torch.zeros(2, 8, dtype=torch.bool)))
    assert not made.tokens.any() and not made.mask.any()
    made.tokens.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in learning.parameters())


def test_nothing_real_runs_nothing_when_frozen(tower: UMT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower, "_read", lambda *_: pytest.fail("ran"))
    assert not tower(Signal(frames(1), torch.zeros(1, 8, dtype=torch.bool))).tokens.any()


def test_recomputed_blocks_give_the_same_gradients(learning: UMT) -> None:
    gradients, calls = [], []
    for block in learning.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    for recomputed in (0, 1):
        learning.grad_checkpointing = recomputed
        learning.zero_grad()
        calls.clear()
        learning(ragged()).tokens.square().sum().backward()
        assert len(calls) == 2 + recomputed
        gradients.append([parameter.grad for parameter in learning.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_positions_are_no_weights(tower: UMT) -> None:
    """One set of weights reads any number of frames on any grid."""
    wide = UMT(**SIZES, image_size=12).eval()
    wide.load_state_dict(tower.state_dict())
    for count in (1, 3, 9, 33):
        pictures = torch.zeros(1, count, 3, 12, 12, dtype=torch.uint8)
        made = wide(Signal(pictures, torch.ones(1, count, dtype=torch.bool)))
        assert made.tokens.shape == (1, count, 9, 16) and made.tokens.isfinite().all()
        assert wide.layout(count) == Layout(count, 9, (3, 3))


def test_cached_positions_serve_training_after_inference(learning: UMT) -> None:
    umt.positions.cache_clear()
    with torch.inference_mode():
        learning(ragged())
    learning(ragged()).tokens.sum().backward()


def test_colors(tower: UMT) -> None:
    clip = UMT(**SIZES, image_size=8, normalize="clip").eval()
    clip.load_state_dict(tower.state_dict())
    assert not torch.allclose(clip(ragged()).tokens, tower(ragged()).tokens, atol=1e-3)


def test_portraits_are_squashed_in_workers() -> None:
    transform = UMT(**SIZES, image_size=8, reads="faces").transform
    assert pickle.loads(pickle.dumps(transform)) == transform == SquareFrames(8, "squash")
    assert transform(torch.zeros(1, 3, 30, 20, dtype=torch.uint8)).shape == (1, 3, 8, 8)


def test_reads_what_it_is_told() -> None:
    assert UMT(**SIZES, image_size=8).reads == "frames"
    assert UMT(**SIZES, image_size=8, reads="faces").reads == "faces"


def test_no_such_layer() -> None:
    for layer in (-4, 0, 4):
        with pytest.raises(ValueError, match=f"select_layer {layer} is none of the 3 blocks"):
            UMT(**SIZES, image_size=8, select_layer=layer)


def test_size_of_the_official_one() -> None:
    with torch.device("meta"):
        encoder = build(compose_part("encoder", "umt/7b", ["+random_weights=true"]))
    assert (len(encoder.blocks), encoder.out_dim, encoder.grid) == (23, 1024, (14, 14))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 290_479_104
    # 2 of the patches, 13 of each block; and 2 of the norm behind
    assert len(encoder.state_dict()) == 301 + 2


# -------------------------------------------------------------------------------------------------- weights


def folder(tower: UMT, into: Path, **changed: int) -> str:
    save_file({key: x.half() for key, x in tower.state_dict().items()}, into / "model.safetensors")
    (into / "config.json").write_text(json.dumps(SIZES | changed))
    return str(into)


def official(tower: UMT, into: Path, prefix: str = "vision_encoder.encoder.", wrap: str = "model") -> str:
    """A file as VideoChat2 writes it."""
    names = {"patch_embed.": f"{prefix}patch_embed.proj.", "blocks.": f"{prefix}blocks.",
             "vision_layernorm.": "vision_layernorm."}  # fmt: skip
    state = {
        next(theirs + key.removeprefix(ours) for ours, theirs in names.items() if key.startswith(ours)): tensor
        for key, tensor in tower.state_dict().items()
    }
    above = {key.replace("blocks.1.", "blocks.2."): x for key, x in state.items() if "blocks.1." in key}
    state |= above | {f"{prefix}norm.weight": torch.ones(16), f"{prefix}norm.bias": torch.ones(16)}
    torch.save({wrap: state, "epoch": 3}, into / "official.pth")
    return str(into / "official.pth")


def edited(file: str, **changes: Any) -> str:
    """The file without the keys that contain ``without``, and with each key passed through ``name``."""
    state = torch.load(file, weights_only=True)["model"]
    lost, name = changes.get("without", "\n"), changes.get("name", lambda key: key)
    torch.save({"model": {name(key): x for key, x in state.items() if lost not in key}}, file)
    return file


def same(one: UMT, other: UMT, atol: float = 0.0) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.allclose(left[key], right[key], atol=atol) for key in left)


def test_reads_a_folder_of_ours(tower: UMT, tmp_path: Path) -> None:
    made = UMT(**SIZES, image_size=12, weights=folder(tower, tmp_path))
    assert same(made, tower, atol=1e-3)
    assert all(parameter.dtype == torch.float32 for parameter in made.parameters())


def test_another_size_than_the_weights_is_named(tower: UMT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table_side: 2 here, 14 there"):
        UMT(**SIZES, image_size=8, weights=folder(tower, tmp_path, table_side=14))


def test_a_layer_that_the_folder_lacks(tower: UMT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"do not fit the encoder: 13 missing .such as blocks\.2\."):
        UMT(**SIZES, image_size=8, select_layer=-1, weights=folder(tower, tmp_path))


@pytest.mark.parametrize("wrap", ["model", "module"])
@pytest.mark.parametrize("prefix", ["vision_encoder.encoder.", "encoder.", "module.vision_encoder.encoder."])
def test_reads_an_official_file(tower: UMT, tmp_path: Path, prefix: str, wrap: str) -> None:
    assert same(UMT(**SIZES, image_size=8, weights=official(tower, tmp_path, prefix, wrap)), tower)


def test_the_last_block_is_there_for_who_reads_it(tower: UMT, tmp_path: Path) -> None:
    made = UMT(**SIZES, image_size=8, select_layer=-1, weights=official(tower, tmp_path))
    assert torch.equal(made.blocks[2].mlp["fc1"].weight, tower.blocks[1].mlp["fc1"].weight)


def test_umt_s_own_file_has_no_norm_of_videochat2(tower: UMT, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = edited(official(tower, tmp_path, "encoder."), without="vision_layernorm")
    with caplog.at_level(logging.WARNING):
        made = UMT(**SIZES, image_size=8, weights=file)
    assert "has no vision_layernorm" in caplog.text
    assert (made.vision_layernorm.weight == 1).all() and not made.vision_layernorm.bias.any()
    assert torch.equal(made.blocks[1].attn.q_bias, tower.blocks[1].attn.q_bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": "encoder.blocks.1."}, r"part of a vision encoder of 2 blocks: blocks\.1 are missing"),
        ({"without": "patch_embed"}, r"patch_embed are missing"),
        ({"without": "blocks.1.mlp.fc1.bias"}, r"do not fit the encoder: 1 missing .such as blocks\.1\.mlp\.fc1\.bias"),
        ({"without": "vision_encoder"}, r"has no vision encoder, as VideoChat2's stage 1"),
        ({"name": lambda key: f"visual.{key}"}, r"first is 'visual\.vision_encoder\.encoder\.patch_embed\."),
        ({"name": lambda key: key.replace("fc2", "fc9")}, r"4 missing .such as blocks\.0\.mlp\.fc2"),
    ],
    ids=["a block is lost", "patches are lost", "a tensor is lost", "stage 1", "a wrong prefix", "a wrong name"],
)
def test_where_strict_false_would_go_on(tower: UMT, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UMT(**SIZES, image_size=8, weights=edited(official(tower, tmp_path), **change))


def test_a_file_of_another_size(tower: UMT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of another shape"):
        UMT(**SIZES | {"intermediate_size": 32}, image_size=8, weights=official(tower, tmp_path))


def test_where_the_file_comes_from(tower: UMT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = official(tower, tmp_path)
    assert same(UMT(**SIZES, image_size=8, weights=str(tmp_path), file="official.pth"), tower)
    assert same(UMT(**SIZES, image_size=8, weights=file, file="of the preset.pth"), tower)
    monkeypatch.setattr(umt, "hf_hub_download", lambda repository, name: file if repository == "a/b" else None)
    assert same(UMT(**SIZES, image_size=8, weights="a/b", file="stage2.pth"), tower)
    with pytest.raises(ValueError, match="'a/b' is no file or folder here; of a hub repository say which `file`"):
        UMT(**SIZES, image_size=8, weights="a/b")
