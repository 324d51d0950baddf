"""Tiles have the pixels, the order and the number of those of transformers' LLaVA-OneVision."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from omnihuman.nn.tiles import Tiles, arrange_tokens, count_tokens, parse_tiles
from omnihuman.types import Tiling

SIZE, PATCH, MAX_TILES = 42, 14, 2
GRIDS = tuple(product((1, 2, 3), (1, 2, 3)))
PINPOINTS = [[rows * SIZE, columns * SIZE] for rows, columns in GRIDS]
TILES = Tiles(SIZE, GRIDS)
SHAPES = {"square": (126, 126), "wide": (70, 333), "tall": (257, 64), "small": (9, 20), "line": (1, 300)}
"""Height and width of images."""


def build_official() -> LlavaOnevisionImageProcessor:
    half, size = [0.5] * 3, {"height": SIZE, "width": SIZE}
    return LlavaOnevisionImageProcessor(image_mean=half, image_std=half, size=size, image_grid_pinpoints=PINPOINTS)


def draw_image(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_equal_those_of_transformers(shape: str) -> None:
    image = draw_image(SHAPES[shape])
    expected = build_official()(image, return_tensors="pt")["pixel_values"][0]
    tiling = TILES.choose(*SHAPES[shape])
    tiles = TILES.cut(image[None], tiling)
    assert tiles.dtype == torch.uint8 and len(tiles) == 1 + tiling.rows * tiling.columns
    torch.testing.assert_close(tiles / 127.5 - 1, expected, rtol=0, atol=1e-6)


def test_several_images_are_padded_as_by_transformers() -> None:
    images = [draw_image(SHAPES["wide"]), draw_image(SHAPES["tall"])]
    expected = build_official()([images], return_tensors="pt")["pixel_values"]
    tiles = torch.cat([TILES.cut(image[None], TILES.untiled) for image in images])
    torch.testing.assert_close(tiles / 127.5 - 1, expected[:, 0], rtol=0, atol=1e-6)


def pack_official(features: torch.Tensor, shape: tuple[int, int], newline: torch.Tensor) -> torch.Tensor:
    vision: Any = SimpleNamespace(image_size=SIZE, patch_size=PATCH)
    model: Any = SimpleNamespace(config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=PINPOINTS))
    sizes: Any = [shape]
    packed, _ = LlavaOnevisionModel.pack_image_features(model, [features], sizes, newline, f"anyres_max_{MAX_TILES}")
    return packed[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_equal_those_of_transformers(shape: str) -> None:
    """Some of the images have more tokens than two tiles, and are shrunk."""
    tiling = TILES.choose(*SHAPES[shape])
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1 + tiling.rows * tiling.columns, 9, 4, generator=generator)
    newline = torch.full((4,), 7.0)
    tokens = arrange_tokens(torch.cat([features, torch.zeros(2, 9, 4)]), tiling, (3, 3), newline, MAX_TILES)
    torch.testing.assert_close(tokens, pack_official(features, SHAPES[shape], newline), rtol=0, atol=1e-6)
    assert len(tokens) == count_tokens(tiling, (3, 3), MAX_TILES)


@pytest.mark.parametrize("shape", [(384, 384), (480, 640), (1080, 1920), (1500, 400), (2304, 2304), (37, 21)])
def test_counts_equal_those_of_transformers_at_its_size(shape: tuple[int, int]) -> None:
    grids = tuple(product(range(1, 7), range(1, 7)))
    processor: Any = SimpleNamespace(
        image_processor=LlavaOnevisionImageProcessor(), num_image_tokens=729, vision_aspect_ratio="anyres_max_9"
    )
    processor._get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features.__get__(processor)
    expected = LlavaOnevisionProcessor._get_number_of_features(processor, *shape, 384, 384)
    assert count_tokens(Tiles(384, grids).choose(*shape), (27, 27), 9) == expected


def test_an_image_that_stays_whole_ends_with_one_newline() -> None:
    tokens = arrange_tokens(torch.ones(1, 9, 2), TILES.untiled, (3, 3), torch.zeros(2), None)
    assert tokens[:, 0].tolist() == [1.0] * 9 + [0.0] and count_tokens(TILES.untiled, (3, 3), None) == 10


def test_without_a_limit_no_token_is_resized() -> None:
    assert count_tokens(Tiling(3, 3, 126, 126), (3, 3), None) == 9 + 9 * 10


def test_the_option_is_checked() -> None:
    assert parse_tiles({"size": 42, "grids": [[1, 2]]}) == Tiles(42, ((1, 2),)) and parse_tiles(None) is None
    for raw in (
        3,
        {"size": 42},
        {"size": 0, "grids": [[1, 1]]},
        {"size": 42, "grids": [[1]]},
        {"size": 42, "grids": []},
    ):
        with pytest.raises(ValueError, match=r"data\.tiles.*size: .*grids: "):
            parse_tiles(raw)
