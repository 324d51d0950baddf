"""Conversion of FaceXFormer's official file to a folder that our encoder loads."""

import math
from pathlib import Path
from typing import Any

import torch

from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.official.checkpoint import find_single_file, open_checkpoint
from omnihuman.official.conversion import Conversion, MappedCheckpoint, Request, format_usage, parameter_shapes
from omnihuman.official.facexformer import keys
from omnihuman.official.shapes import count_names, find_shape


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of FaceXFormer's official file.

    Raises:
        ValueError: it is another model's, or incomplete.
    """
    file = find_single_file(request.path)
    checkpoint = open_checkpoint(file, wrappers=(keys.ENTRY,))
    mapped = MappedCheckpoint(checkpoint, keys.report_keys(checkpoint))
    shapes = mapped.shapes()
    find_shape(file, shapes, "linears.0.weight")  # at least one stage
    depths, num_heads, windows = [], [], []
    for stage in range(count_names(shapes, "linears.{}.weight")):
        table = f"features.{2 * stage + 1}.{{}}.attn.relative_position_bias_table"
        window, heads = find_shape(file, shapes, table.format(0))
        depths.append(count_names(shapes, table))
        num_heads.append(heads)
        windows.append(window)
    sizes: dict[str, Any] = {
        "embed_dim": find_shape(file, shapes, "features.0.0.weight")[0],
        "depths": depths,
        "num_heads": num_heads,
        "window_size": (math.isqrt(windows[0]) + 1) // 2,
        "dim": find_shape(file, shapes, "fuse.weight")[0],
    }
    with torch.device("meta"):
        model = FaceXFormer(image_size=32, **sizes)
    note = format_usage("facexformer", {"weights": str(request.out.absolute()), **sizes})
    return Conversion((mapped,), parameter_shapes(model), sizes=sizes, notes=(note,))
