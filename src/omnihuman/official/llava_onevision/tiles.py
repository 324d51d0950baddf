"""The tiles of a LLaVA-OneVision, from its config.json."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from omnihuman.nn.tiles import Tiles

ANYRES = re.compile(r"anyres(?:_max_(\d+))?")
RANGE = re.compile(r"\((\d+)x(\d+)\)")


class TileSettings(NamedTuple):
    """The tiles of images.

    Attributes:
        tiles: the grids; ``None`` for images that are one frame.
        max_tiles: N of ``anyres_max_N``; ``None`` without one.
        note: for the user.
    """

    tiles: Tiles | None
    max_tiles: int | None = None
    note: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the options of ``conf/prompting`` that depend on the checkpoint."""
        if self.tiles is None:
            return {"data": {"tiles": None}}
        tiles = {"size": self.tiles.size, "grids": [list(grid) for grid in self.tiles.grids]}
        return {"data": {"tiles": tiles}, "model": {"fusions": {"newline": {"max_tiles": self.max_tiles}}}}


def read_tiles(official: Mapping[str, Any], size: int, has_rows: bool, file: str) -> TileSettings:
    """Return how a config.json, in either layout, has images cut.

    Reference: LLaVA-NeXT ``mm_utils.py``, ``process_images``; transformers ``LlavaOnevisionConfig``, whose resolutions
    are (height, width), while the original ones are (width, height).

    Args:
        official: config.json.
        size: of the vision tower's frames.
        has_rows: the model has newline tokens, which end the rows of tiles.
        file: for messages.

    Raises:
        ValueError: ``image_grid_pinpoints`` are no multiples of ``size``.
    """
    is_converted = "text_config" in official
    aspect = official.get("vision_aspect_ratio", "anyres_max_9") if is_converted else official.get("image_aspect_ratio")
    match = ANYRES.fullmatch(str(aspect))
    if match is None or not has_rows:
        kind = f"image_aspect_ratio is {aspect}" if match is None else "there are no newline tokens"
        return TileSettings(None, note=f"an image is asked as a video of one frame: {kind}")
    grids = []
    for first, second in _parse_pinpoints(official.get("image_grid_pinpoints"), size, file):
        height, width = (first, second) if is_converted else (second, first)
        if height % size or width % size:
            raise ValueError(f"{file}: image_grid_pinpoints has {[first, second]}; expected multiples of {size}.")
        grids.append((height // size, width // size))
    return TileSettings(Tiles(size, tuple(grids)), int(match[1]) if match[1] else None)


def _parse_pinpoints(raw: Any, size: int, file: str) -> list[tuple[int, int]]:
    """Return the resolutions, which may be a text: a list, or ``(1x1),...,(6x6)`` in tiles.

    Raises:
        ValueError: they are neither.
    """
    if isinstance(raw, str) and (corners := RANGE.findall(raw)):
        (x0, y0), (x1, y1) = [(int(x), int(y)) for x, y in (corners[0], corners[-1])]
        resolutions = []
        for x in range(x0, x1 + 1):
            resolutions += [(x * size, y * size) for y in range(y0, y1 + 1)]
        return resolutions
    try:
        pairs = json.loads(raw.replace("(", "[").replace(")", "]")) if isinstance(raw, str) else raw
        resolutions = [(int(first), int(second)) for first, second in pairs]
    except (TypeError, ValueError):
        resolutions = []
    if not resolutions:
        raise ValueError(f"{file}: image_grid_pinpoints is {raw!r:.80}; expected a list of resolutions.")
    return resolutions
