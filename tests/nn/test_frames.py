"""Square frames: padded, squashed, or the middle of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from omnihuman.nn.frames import Aspect, SquareFrames, pad_to_square


@pytest.mark.parametrize("size", [(48, 96), (97, 64), (224, 224), (333, 500), (30, 31)])
def test_crop_is_that_of_torchvision(size: tuple[int, int]) -> None:
    """VideoChat2's demos: ``Resize`` of the shorter side with Pillow, and ``CenterCrop``."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = CenterCrop(56)(Resize(56, InterpolationMode.BICUBIC)(Image.fromarray(pixels)))
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    frames = SquareFrames(56, "crop")(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert frames.shape == (1, 3, 56, 56)
    assert (frames[0].int() - expected.int()).abs().max() <= 1, "one level of 255"


SIZES = [(378, 672), (480, 854), (720, 1280), (96, 54), (63, 1), (1, 63), (7, 5), (45, 45)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", ["rows", "planes"])
def test_squares_equal_those_that_are_padded_and_resized_at_once(size: tuple[int, int], layout: str) -> None:
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    frame = pixels.permute(2, 0, 1)[None]
    planes = frame.contiguous()
    for side in (56, 384):
        expected = F.interpolate(pad_to_square(planes), (side, side), mode="bicubic", antialias=True)
        assert torch.equal(SquareFrames(side)(frame if layout == "rows" else planes), expected)


def test_a_square_is_resized_from_any_part_of_a_frame() -> None:
    pixels = torch.randint(0, 256, (60, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    crop = pixels.permute(2, 0, 1)[:, 5:31, 9:60]
    assert torch.equal(SquareFrames(16)(crop[None]), SquareFrames(16)(crop[None].contiguous()))


@pytest.mark.parametrize("aspect", ["pad", "squash", "crop"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (50, 50), (1, 99)])
def test_a_fitted_frame_has_its_place_in_the_square(aspect: Aspect, size: tuple[int, int]) -> None:
    transform = SquareFrames(24, aspect)
    frame = torch.full((1, 3, *transform.fit(*size)), 200, dtype=torch.uint8)
    expected = transform(torch.full((1, 3, *size), 200, dtype=torch.uint8))
    placed = transform.place(frame)
    assert placed.shape == expected.shape
    rows = (placed == 127).all(1).sum() - (expected == 127).all(1).sum()
    assert abs(int(rows)) <= 4 * 24, "up to two rows or columns on each side are a blend"
