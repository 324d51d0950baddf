"""Square frames: padded, squashed, or the middle of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from omnihuman.nn.frames import SquareFrames


@pytest.mark.parametrize("size", [(48, 96), (97, 64), (224, 224), (333, 500), (30, 31)])
def test_crop_is_that_of_torchvision(size: tuple[int, int]) -> None:
    """VideoChat2's demos: ``Resize`` of the shorter side with Pillow, and ``CenterCrop``."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = CenterCrop(56)(Resize(56, InterpolationMode.BICUBIC)(Image.fromarray(pixels)))
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    frames = SquareFrames(56, "crop")(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert frames.shape == (1, 3, 56, 56)
    assert (frames[0].int() - expected.int()).abs().max() <= 1, "one level of 255"
