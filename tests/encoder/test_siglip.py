"""SigLIP: pictures become squares, squares become the tokens that transformers gives."""

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
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from omnihuman.encoder.siglip import SigLIP
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Signal

SIZES: dict[str, Any] = {
    "image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 2,
}  # fmt: skip


def frames(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def signal(pictures: torch.Tensor) -> Signal:
    return Signal(pictures[None], torch.ones(1, len(pictures), dtype=torch.bool))


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SiglipVisionModel]:
    """A vision tower with its head, and the folder it was saved to."""
    torch.manual_seed(0)
    model = SiglipVisionModel(SiglipVisionConfig(**SIZES)).eval()
    folder = str(tmp_path_factory.mktemp("tower"))
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("layer", [-1, -2, -3, 2])
def test_equals_the_hidden_state_of_transformers(tower: tuple[str, SiglipVisionModel], layer: int) -> None:
    folder, model = tower
    encoder = SigLIP(**SIZES, weights=folder, select_layer=layer).eval()
    with torch.no_grad():
        states = model(frames() / 127.5 - 1, output_hidden_states=True).hidden_states
        made = encoder(signal(frames()))
    torch.testing.assert_close(made.tokens[0], states[layer], atol=1e-6, rtol=1e-5)
    assert made.grid == (2, 2)
    assert len(encoder.layers) == range(5)[layer]
    assert not [name for name in encoder.state_dict() if "post_layernorm" in name or "head." in name]


def test_reads_a_whole_siglip(tmp_path: Path) -> None:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    whole = SiglipModel(SiglipConfig(vision_config=SIZES, text_config=text))
    whole.save_pretrained(tmp_path)
    encoder = SigLIP(**SIZES, weights=str(tmp_path))
    theirs = whole.vision_model.state_dict()
    assert torch.equal(encoder.embeddings.patch_embedding.weight, theirs["embeddings.patch_embedding.weight"])
    assert torch.equal(encoder.layers[2].mlp.fc1.weight, theirs["encoder.layers.2.mlp.fc1.weight"])


def changed(folder: str, into: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> str:
    """A copy of a folder of weights with other keys."""
    shutil.copytree(folder, into, dirs_exist_ok=True)
    save_file(change(load_file(into / "model.safetensors")), into / "model.safetensors", metadata={"format": "pt"})
    return str(into)


def test_reads_the_hub_s_older_names(tower: tuple[str, SiglipVisionModel], tmp_path: Path) -> None:
    older = changed(tower[0], tmp_path, lambda state: {f"vision_model.{key}": value for key, value in state.items()})
    assert all(
        key.startswith("vision_model.embed") for key in load_file(tmp_path / "model.safetensors") if "embed" in key
    )
    ours, same = SigLIP(**SIZES, weights=older).state_dict(), SigLIP(**SIZES, weights=tower[0]).state_dict()
    assert ours.keys() == same.keys() and all(torch.equal(ours[key], same[key]) for key in ours)


@pytest.mark.parametrize("lost", ["embeddings.position_embedding.weight", "encoder.layers.2.mlp.fc1.bias"])
def test_truncated_weights_are_refused(tower: tuple[str, SiglipVisionModel], tmp_path: Path, lost: str) -> None:
    folder = changed(tower[0], tmp_path, lambda state: {key: value for key, value in state.items() if key != lost})
    with pytest.raises(ValueError, match=f"do not fit the encoder: 1 missing .such as {lost}"):
        SigLIP(**SIZES, weights=folder)


def test_foreign_weights_are_refused(tower: tuple[str, SiglipVisionModel], tmp_path: Path) -> None:
    folder = changed(tower[0], tmp_path, lambda state: state | {"adapter.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 unknown .such as adapter.weight"):
        SigLIP(**SIZES, weights=folder)


def test_another_size_than_the_weights_is_named(tower: tuple[str, SiglipVisionModel]) -> None:
    with pytest.raises(ValueError, match=r"hidden_size: 24 here, 16 there"):
        SigLIP(**SIZES | {"hidden_size": 24}, weights=tower[0])


def test_no_such_layer() -> None:
    for layer in (-5, 0, 5):
        with pytest.raises(ValueError, match=f"select_layer {layer} is none of the 4 blocks"):
            SigLIP(**SIZES, select_layer=layer)


def test_pad_makes_a_square_of_grey() -> None:
    wide = torch.zeros(2, 3, 10, 21, dtype=torch.uint8)
    square = SquareFrames(21)(wide)
    assert square.shape == (2, 3, 21, 21)
    rows = (square == 127).all(-1).all(1)[0]
    assert rows.nonzero().squeeze(-1).tolist() == [0, 1, 2, 3, 4, 15, 16, 17, 18, 19, 20]
    assert torch.equal(SquareFrames(21)(wide.mT), square.mT)


@pytest.mark.parametrize("shape", [(240, 426), (426, 240), (97, 100), (30, 20), (64, 64)])
@pytest.mark.parametrize("aspect", ["pad", "squash"])
def test_squares_equal_those_of_pil(shape: tuple[int, int], aspect: Literal["pad", "squash"]) -> None:
    """Training's expand2square with 127, then the image processor's bicubic resize."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)) * 255
    picture = F.interpolate(coarse, shape, mode="bilinear")[0].byte()
    theirs = Image.fromarray(picture.permute(1, 2, 0).numpy())
    if aspect == "pad":
        square = Image.new("RGB", (max(shape),) * 2, (127, 127, 127))
        square.paste(theirs, ((max(shape) - shape[1]) // 2, (max(shape) - shape[0]) // 2))
        theirs = square
    resized = torch.from_numpy(np.array(theirs.resize((64, 64), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    difference = (SquareFrames(64, aspect)(picture[None])[0].float() - resized.float()).abs()
    assert difference.mean() < 0.01 and difference.max() <= 1


def test_squash_takes_the_whole_side() -> None:
    wide = torch.full((1, 3, 10, 20), 40, dtype=torch.uint8)
    assert (SquareFrames(28, "squash")(wide) == 40).all()


def test_a_square_of_the_right_size_is_left_alone() -> None:
    assert torch.equal(SquareFrames(28)(frames()), frames())


def test_transform_goes_to_workers() -> None:
    transform = SigLIP(**SIZES).transform
    assert pickle.loads(pickle.dumps(transform)) == transform == SquareFrames(28, "pad")


def test_no_frames_run_nothing_when_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SigLIP(**SIZES).requires_grad_(False)
    monkeypatch.setattr(encoder, "_read", lambda frames: pytest.fail("ran"))
    made = encoder(Signal(frames()[None], torch.zeros(1, 3, dtype=torch.bool)))
    assert made.tokens.shape == (1, 3, 4, 16) and not made.tokens.any() and not made.mask.any()
