"""Image files and folders of images, read with Pillow."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnihuman.data.decode.frames import MAX_PIXELS, DecodedFrame, Take, select_frames, take_image
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.record import BadSample, Span

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
"""Suffixes of the images in a folder that is a video."""

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
"""Formats that Pillow may open."""


def check_size(path: Path, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Check the size of a frame or image before it is decoded.

    Raises:
        BadSample: it is too large.
    """
    if width * height > max_pixels:
        message = f"{width} x {height} pixels; at most {max_pixels} are accepted. Scale it down."
        raise BadSample("too_large", f"{path}: {message}")


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 H W"]:
    """Return an image file, upright.

    Colours are those of Pillow's ``convert("RGB")``, which the official code uses; 16-bit values keep their high byte.

    Raises:
        BadSample: the file is no image, is cut, moves or is too large.
    """
    return _open_image(path, FORMATS, max_pixels)


def read_tiles(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 H W"]:
    """Return an image of tiles (HEIC, AVIF), assembled and upright.

    Raises:
        BadSample: the package that assembles the tiles is missing, or as ``read_image``.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        formats: tuple[str, ...] = ("AVIF",)
        cure = 'pip install "omnihuman[heif]" (pillow-heif), or convert the image to JPEG'
    else:
        register_heif_opener()
        formats = ("AVIF", "HEIF")
        cure = "convert the image to JPEG"
    try:
        return _open_image(path, formats, max_pixels)
    except BadSample as bad:
        if not isinstance(bad.__cause__, UnidentifiedImageError):
            raise
        raise BadSample("tiles", f"{path}: the image consists of tiles, which cannot be assembled; {cure}.") from bad


def _open_image(path: Path, formats: tuple[str, ...], max_pixels: int) -> UInt8[Tensor, "3 H W"]:
    try:
        with Image.open(path, formats=formats) as image:
            check_size(path, image.width, image.height, max_pixels)
            num_images = getattr(image, "n_frames", 1)
            if num_images > 1 and image.format != "MPO":  # a photo with its preview or its second view
                message = f"{num_images} images in a file of {image.format}; convert it to a video (mp4, gif)"
                raise BadSample("moving_image", f"{path}: {message}.")
            if image.mode in ("I", "F"):
                raise BadSample("unreadable", f"{path}: pixels of 32 bits have no known range; convert it to 8 bits.")
            ImageOps.exif_transpose(image, in_place=True)
            return torch.from_numpy(_to_rgb(image)).permute(2, 0, 1)
    except Image.DecompressionBombError as error:
        raise BadSample("too_large", f"{path}: more than {max_pixels} pixels ({error}). Scale it down.") from error
    except BadSample:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise BadSample("unreadable", f"{path}: cannot be read as an image ({error}).") from error


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith("I;16"):  # grey, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


def list_images(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of the numbers in their names.

    Raises:
        BadSample: the folder cannot be read, or has no image.
    """

    def sort_key(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
        pieces = re.split(r"(\d+)", path.name)
        keys = []
        for piece in pieces:
            is_number = piece.isdecimal()
            keys.append((is_number, int(piece) if is_number else 0, piece))
        return keys, path.name

    try:
        images = sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=sort_key)
    except OSError as error:
        raise BadSample("unreadable", f"{folder}: the folder cannot be read ({error.strerror}).") from error
    if not images:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise BadSample("no_frames", f"{folder}: the folder has no image ({suffixes}), so it is not a video.")
    return images


def read_folder(
    folder: Path,
    num_frames: int,
    span: Span,
    fps: float,
    sampling: Sampling = "midpoints",
    take: Take = take_image,
) -> tuple[list[Any], list[float], float]:
    """Return what ``take`` makes of the selected images of a folder, their seconds, and their scale.

    They get the size of the first one, or a smaller one where ``num_frames`` of that size exceed ``MAX_PIXELS``.

    Raises:
        BadSample: the folder has no image in the clip, or one cannot be read.
    """
    files = list_images(folder)
    times = {number: number / fps for number in range(len(files))}
    if span[0] >= len(files) / fps:
        message = f"the clip starts at {span[0]:g} s, the {len(files)} images end at {len(files) / fps:g} s"
        raise BadSample("empty_clip", f"{folder}: {message}; correct start or fps.")
    selected = select_frames(folder, times, num_frames, span, sampling)
    images: dict[int, Any] = {}
    scale, size = 1.0, (0, 0)
    for number in selected:
        if number in images:
            continue
        image = read_image(files[number])
        if not images:
            height, width = image.shape[-2:]
            scale = min(1.0, (MAX_PIXELS / num_frames / (height * width)) ** 0.5)
            size = (max(1, int(height * scale)), max(1, int(width * scale)))
        images[number] = take(show_image(image, times[number], size, scale))
    return [images[number] for number in selected], [times[number] for number in selected], scale


def show_image(
    image: UInt8[Tensor, "3 H W"], time: float = 0.0, size: tuple[int, int] | None = None, scale: float = 1.0
) -> DecodedFrame:
    """Return an image as a frame of a clip, of its own or another height and width."""
    height, width = size or image.shape[-2:]
    return DecodedFrame(time, (height, width), lambda size, _: resize(image[None], size)[0], scale, is_image=True)


def resize(frames: UInt8[Tensor, "T 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "T 3 Y X"]:
    """Return frames of another height and width."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    resized = F.interpolate(frames.contiguous().float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
