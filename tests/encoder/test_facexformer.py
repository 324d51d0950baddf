"""FaceXFormer: frames with holes, levels and a pooled grid; weights of either layout or a clear refusal."""

import json
import logging
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
from omnihuman.convert.facexformer import ENTRY, FILE
from omnihuman.encoder import facexformer
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Features, Layout, Signal

SIZES: dict[str, Any] = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 3, "dim": 12}
ON = [[1, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
"""With a hole, without any face, one face at the end."""


@pytest.fixture(scope="module")
def tower() -> FaceXFormer:
    torch.manual_seed(0)
    return FaceXFormer(**SIZES, image_size=32).requires_grad_(False)


def frames(seed: int = 0) -> Tensor:
    shape = (len(ON), len(ON[0]), 3, 32, 32)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def official(encoder: FaceXFormer) -> dict[str, Tensor]:
    """The encoder's weights under the official names, with what official files hold besides."""
    named = {}
    for name, tensor in encoder.state_dict().items():
        kind, _, rest = name.partition(".")
        stage, _, last = rest.partition(".")
        key = {"features": f"backbone.0.{rest}", "linears": f"linear_c.{stage}.proj.{last}"}
        named[key.get(kind, f"linear_fuse.{rest}")] = tensor
    return named | {"backbone.1.weight": torch.ones(16), "face_decoder.iou_token.weight": torch.ones(1)}


def saved(encoder: FaceXFormer, folder: Path, **changed: Any) -> str:
    """A folder under our names, in half precision."""
    folder.mkdir(exist_ok=True)
    save_file({name: p.detach().half() for name, p in encoder.named_parameters()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES | changed))
    return str(folder)


def parts(made: Features) -> list[Tensor]:
    return [made.tokens, *(level.tokens for level in made.levels)]


def test_levels_and_layout(tower: FaceXFormer) -> None:
    made = tower(Signal(frames(), torch.tensor(ON).bool()))
    assert tower.level_dims == (8, 16) and tower.out_dim == 12
    assert made.grid == (8, 8) and [level.grid for level in made.levels] == [(8, 8), (4, 4)]
    assert [part.shape for part in parts(made)] == [(3, 4, 64, 12), (3, 4, 64, 8), (3, 4, 16, 16)]
    assert all(torch.equal(level.mask[..., 0], made.mask[..., 0]) for level in made.levels)
    levels = (Layout(4, 64, (8, 8)), Layout(4, 16, (4, 4)))
    assert tower.layout(4) == Layout(4, 64, (8, 8), levels)


def test_only_real_frames_are_read(tower: FaceXFormer, monkeypatch: pytest.MonkeyPatch) -> None:
    read, counts = tower._read, list[int]()
    monkeypatch.setattr(tower, "_read", lambda frames: counts.append(len(frames)) or read(frames))
    mask = torch.tensor(ON).bool()
    made = tower(Signal(frames(), mask))
    assert counts == [4]
    other = tower(Signal(torch.where(mask[..., None, None, None], frames(), frames(1)), mask))
    alone = tower(Signal(frames()[2:, 3:], mask[2:, 3:]))
    for one, same, single in zip(parts(made), parts(other), parts(alone), strict=True):
        assert torch.equal(one, same) and not one[~mask].any()
        torch.testing.assert_close(one[2, 3], single[0, 0])


def test_nobody_s_face() -> None:
    """Runs nothing where it is frozen; where it learns, every gradient is zero."""
    encoder = FaceXFormer(**SIZES, image_size=32)
    signal = Signal(frames(), torch.zeros(3, 4, dtype=torch.bool))
    made = encoder(signal)
    assert not any(part.any() for part in parts(made)) and not made.mask.any()
    made.tokens.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())
    encoder.requires_grad_(False)
    encoder._read = lambda frames: pytest.fail("ran")  # type: ignore[method-assign, assignment]
    assert not encoder(signal).tokens.any()


def test_levels_alone_teach_the_swin() -> None:
    """A cascade may read the levels and leave the fused tokens."""
    encoder = FaceXFormer(**SIZES, image_size=32)
    made = encoder(Signal(frames(), torch.tensor(ON).bool()))
    torch.cat([level.tokens.flatten() for level in made.levels]).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.features.parameters())


def test_pool_averages_the_grid(tower: FaceXFormer) -> None:
    pooled = FaceXFormer(**SIZES, image_size=32, pool=4)
    pooled.load_state_dict(tower.state_dict())
    signal = Signal(frames(), torch.tensor(ON).bool())
    with torch.no_grad():
        made, whole = pooled(signal), tower(signal)
    maps = whole.tokens.flatten(0, 1).unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    expected = F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2).unflatten(0, (3, 4))
    torch.testing.assert_close(made.tokens, expected)
    assert made.grid == (4, 4) and pooled.layout(2).total == 32
    assert all(map(torch.equal, parts(made)[1:], parts(whole)[1:]))


@pytest.mark.parametrize("pool", [0, 9])
def test_no_such_pool(pool: int) -> None:
    with pytest.raises(ValueError, match=f"pool {pool} is no side of a grid made from 8 x 8"):
        FaceXFormer(**SIZES, image_size=32, pool=pool)


def test_stays_in_eval_mode_and_learns() -> None:
    encoder = FaceXFormer(**SIZES, image_size=32)
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    encoder(Signal(frames(), torch.tensor(ON).bool())).tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_reads_frames_or_faces() -> None:
    assert FaceXFormer(**SIZES, image_size=32).reads == "frames"
    assert FaceXFormer(**SIZES, image_size=32, reads="faces").reads == "faces"


def test_transform_squashes(tower: FaceXFormer) -> None:
    made = pickle.loads(pickle.dumps(tower.transform))
    assert made == SquareFrames(32, "squash")
    assert made(torch.zeros(2, 3, 40, 20, dtype=torch.uint8)).shape == (2, 3, 32, 32)


def test_is_torchvision_s_swin_b() -> None:
    with torch.device("meta"):
        ours, theirs = build(compose_part("encoder", "facexformer/7b", ["+random_weights=true"])), swin_b()
    shapes = {name: tensor.shape for name, tensor in theirs.features.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.features.state_dict().items()} == shapes
    assert ours.level_dims == (128, 256, 512, 1024)
    assert [level.tokens for level in ours.layout(1).levels] == [3136, 784, 196, 49] and ours.layout(1).tokens == 196


def test_a_folder_of_our_names(tower: FaceXFormer, tmp_path: Path) -> None:
    made = FaceXFormer(**SIZES, image_size=32, weights=saved(tower, tmp_path))
    assert all(p.dtype == torch.float32 for p in made.parameters())
    assert all(map(torch.equal, (p.half() for p in made.parameters()), (p.half() for p in tower.parameters())))


def test_official_file_folder_and_hub(
    tower: FaceXFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / FILE
    file.parent.mkdir()
    torch.save({ENTRY: official(tower)}, file)
    asked = []
    monkeypatch.setattr(facexformer, "hf_hub_download", lambda repo, name: asked.append((repo, name)) or str(file))
    signal = Signal(frames(), torch.tensor(ON).bool())
    for weights in (str(file), str(tmp_path), "kartiknarayan/facexformer"):
        with caplog.at_level(logging.INFO):
            made = FaceXFormer(**SIZES, image_size=32, weights=weights)
        assert all(map(torch.equal, parts(made(signal)), parts(tower(signal))))
    assert asked == [("kartiknarayan/facexformer", FILE)]
    assert f"{len(list(tower.parameters()))} tensors are read, 5 are not" in caplog.text


def test_weights_that_do_not_fit_are_refused(tower: FaceXFormer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"depths: \[1, 2\] here, \[1, 3\] there"):
        FaceXFormer(**SIZES, image_size=32, weights=saved(tower, tmp_path / "deeper", depths=[1, 3]))
    state = official(tower)
    lost = "backbone.0.1.0.mlp.0.bias"
    torch.save({ENTRY: {key: tensor for key, tensor in state.items() if key != lost}}, tmp_path / "lost.pt")
    with pytest.raises(ValueError, match=r"1 missing .such as features.1.0.mlp.0.bias"):
        FaceXFormer(**SIZES, image_size=32, weights=str(tmp_path / "lost.pt"))
    torch.save({ENTRY: state | {"backbone.0.9.weight": torch.ones(1)}}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"1 unknown .such as features.9.weight"):
        FaceXFormer(**SIZES, image_size=32, weights=str(tmp_path / "more.pt"))
    torch.save({ENTRY: state}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"\d of another shape .such as fuse.weight"):
        FaceXFormer(**SIZES | {"dim": 6}, image_size=32, weights=str(tmp_path / "model.pt"))
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        FaceXFormer(**SIZES, image_size=32, weights=str(tmp_path))
