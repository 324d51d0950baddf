"""A strip of images side by side, for pages that show a clip."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor


def draw_strip(images: Sequence[Tensor], height: int) -> Image.Image:
    """Return images ``[3 H W]``, uint8, side by side, scaled to one height in pixels."""
    scaled = []
    for image in images:
        width = max(1, round(image.shape[2] * height / image.shape[1]))
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        scaled.append(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)))
    return Image.fromarray(np.concatenate(scaled, axis=1))
