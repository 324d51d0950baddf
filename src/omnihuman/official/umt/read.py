"""Conversion of the vision encoder in UMT's or VideoChat2's file to a folder that our encoder loads."""

from pathlib import Path
from typing import Any

import torch

from omnihuman.encoder.umt import UMT
from omnihuman.official.checkpoint import find_single_file, open_checkpoint
from omnihuman.official.conversion import (
    Conversion,
    MappedCheckpoint,
    Request,
    add_tensors,
    format_usage,
    parameter_shapes,
)
from omnihuman.official.keys import KeyReport
from omnihuman.official.shapes import HEAD_DIM, Shapes, count_names, find_shape
from omnihuman.official.videochat2 import keys

NO_NORM = "UMT's own file has no vision_layernorm: it is initialized with 1 and 0, as in VideoChat2's stage 1"
OTHER_PART = "another part: official=videochat2 reads it"


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of UMT's or VideoChat2's official file.

    UMT's own file has the vision encoder alone, with all blocks and a final norm. VideoChat2's stage 1 freezes the
    encoder and saves nothing of it; stages 2 and 3 save the blocks that they run, beside a Q-Former and a language
    model. Only the blocks below the features are kept. ``vision_layernorm`` is VideoChat2's own layer: UMT's file
    cannot contain it, and its initial values are then correct, because stage 1 also starts from them.

    Differs from the official loader, whose ``strict=False`` keeps random weights after a wrong prefix.

    Raises:
        ValueError: it has no vision encoder, is another model's, or incomplete.
    """
    checkpoint = open_checkpoint(find_single_file(request.path), wrappers=("model", "module"))
    report = keys.report_keys(checkpoint, keys.count_blocks(checkpoint))
    prefix = "encoders.video."
    names: dict[str, str] = {}
    dropped = dict(report.dropped)
    for key, name in report.names.items():
        if name.startswith(prefix):
            names[key] = name.removeprefix(prefix)
        else:
            dropped[key] = OTHER_PART
    mapped = MappedCheckpoint(checkpoint, KeyReport(names, dropped))
    sizes = infer_umt_sizes(mapped.shapes(), checkpoint.path)
    with torch.device("meta"):
        model = UMT(image_size=14 * sizes["patch_size"], **sizes)
    checkpoints = [mapped]
    notes = [format_usage("umt", {"weights": str(request.out.absolute()), **sizes})]
    is_umt_file = len(names) == len(report.names)
    if is_umt_file and "vision_layernorm.weight" not in names.values():
        norm = {
            "vision_layernorm.weight": torch.ones(sizes["hidden_size"]),
            "vision_layernorm.bias": torch.zeros(sizes["hidden_size"]),
        }
        checkpoints.append(add_tensors(norm))
        notes.append(NO_NORM)
    return Conversion(tuple(checkpoints), parameter_shapes(model), sizes=sizes, notes=tuple(notes))


def infer_umt_sizes(shapes: Shapes, file: Path) -> dict[str, Any]:
    """Return the arguments of our encoder, from the shapes of its parameters; no file has its table of positions.

    Raises:
        ValueError: the checkpoint has no vision encoder.
    """
    hidden, _, _, patch, _ = find_shape(file, shapes, "patch_embed.weight")
    return {
        "patch_size": patch,
        "hidden_size": hidden,
        "intermediate_size": find_shape(file, shapes, "blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": count_names(shapes, "blocks.{}.norm1.weight") + 1,
        "num_attention_heads": hidden // HEAD_DIM,
        "table_frames": 4,
        "table_side": 14,
    }
