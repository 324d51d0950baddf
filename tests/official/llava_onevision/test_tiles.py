"""Grids of tiles from the fields of a config.json, in either layout."""

from itertools import product
from typing import Any

import pytest

from omnihuman.build import compose_part
from omnihuman.nn.tiles import Tiles
from omnihuman.official.llava_onevision.tiles import read_tiles

SQUARE = tuple(product(range(1, 7), range(1, 7)))
RELEASED = {"image_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": "(1x1),...,(6x6)"}
HUB = {"text_config": {}, "vision_aspect_ratio": "anyres_max_9"}


def read(**fields: Any) -> Any:
    return read_tiles(fields, 384, True, "config.json")


def test_the_released_range_is_that_of_our_description() -> None:
    tiles = read(**RELEASED)
    assert {*tiles.tiles.grids} == {*SQUARE} and tiles.max_tiles == 9 and not tiles.note
    plain = read(**HUB, image_grid_pinpoints=[[rows * 384, columns * 384] for rows, columns in SQUARE])
    preset = compose_part("prompting", "llava_onevision")
    for options in (plain.describe(), read(**HUB, image_grid_pinpoints=str([[768, 384]])).describe()):
        assert options["model"]["fusions"]["newline"]["max_tiles"] == preset.model.fusions.newline.max_tiles
    assert plain.describe()["data"]["tiles"] == preset.data.tiles


def test_width_comes_first_in_the_original_layout() -> None:
    assert read(image_aspect_ratio="anyres", image_grid_pinpoints="[(384, 768)]")[:2] == (Tiles(384, ((2, 1),)), None)
    assert read(**HUB, image_grid_pinpoints=[[384, 768]])[0] == Tiles(384, ((1, 2),))


@pytest.mark.parametrize("aspect", [None, "pad", "square", "highres"])
def test_other_forms_are_noted(aspect: str | None) -> None:
    tiles = read(image_aspect_ratio=aspect)
    assert tiles.describe() == {"data": {"tiles": None}} and str(aspect) in tiles.note
    assert "newline" in read_tiles(RELEASED, 384, False, "config.json").note


@pytest.mark.parametrize("pinpoints", [None, "many", [[384]], [[385, 384]], []])
def test_invalid_resolutions_raise(pinpoints: Any) -> None:
    with pytest.raises(ValueError, match=r"config\.json: image_grid_pinpoints"):
        read(image_aspect_ratio="anyres_max_9", image_grid_pinpoints=pinpoints)
