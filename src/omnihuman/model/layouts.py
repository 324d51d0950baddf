"""Layouts along the streams of a model: the numbers of tokens, known before any media is decoded."""

from collections.abc import Mapping

from omnihuman.encoder.base import Encoder
from omnihuman.fusion.base import Fusion
from omnihuman.modality import BY_FIELD, FRAMES, INSTRUCTION
from omnihuman.model.wiring import naming, replace_inputs
from omnihuman.projector.base import Projector
from omnihuman.types import FrameCount, Layout

Layouts = dict[str, Layout | None]
"""Layout of every stream; ``None`` for the stream of an absent modality."""


def encoder_layouts(encoders: Mapping[str, Encoder], reads: Mapping[str, str], amounts: Mapping[str, int]) -> Layouts:
    """Return the layouts of the encoders' streams for these amounts of ``frames`` and ``waveform``."""
    layouts: Layouts = {}
    for name, encoder in encoders.items():
        field = reads[name]
        amount = 1 if field == INSTRUCTION else amounts.get(BY_FIELD[field].planned_from, 0)
        layouts[name] = encoder.layout(amount) if amount else None
        if (layout := layouts[name]) is not None and field == FRAMES and isinstance(amount, FrameCount):
            layouts[name] = layout._replace(tiling=amount.tiling)
    return layouts


def project_layouts(
    projectors: Mapping[str, Projector], projector_inputs: Mapping[str, str], layouts: Layouts
) -> Layouts:
    """Return the layouts after the projectors.

    Raises:
        ValueError: a projector cannot read its stream.
    """
    projected: Layouts = {}
    for name, projector in projectors.items():
        stream = layouts[projector_inputs[name]]
        projected[name] = None
        if stream is not None:
            with naming(f"projectors.{name} reads {projector_inputs[name]!r}"):
                projected[name] = projector.layout(stream)._replace(levels=(), tiling=stream.tiling)
    return replace_inputs(layouts, projector_inputs, projected)


def fuse_layouts(group: str, fusions: Mapping[str, Fusion], layouts: Layouts) -> Layouts:
    """Return the layouts after a group of fusions.

    Raises:
        ValueError: a fusion cannot merge its inputs.
    """
    for name, fusion in fusions.items():
        with naming(f"{group}.{name}"):
            layouts = fusion.replace_inputs(layouts, _merge_layouts(fusion, layouts))
    return layouts


def check_tiles(layouts: Mapping[str, Layout | None]) -> None:
    """Check that no stream consists of tiles, whose tokens a fusion must put in order.

    Raises:
        ValueError: one does.
    """
    for name, layout in layouts.items():
        if layout is not None and layout.tiling is not None:
            raise ValueError(
                f"{name} consists of the tiles of an image, which only the fusion newline puts in order, as the first "
                "fusion: leave data.tiles out."
            )


def _merge_layouts(fusion: Fusion, layouts: Layouts) -> Layout | None:
    inputs = [layout for name in fusion.inputs if (layout := layouts[name]) is not None]
    if len(inputs) < len(fusion.inputs):
        return None
    condition = layouts[fusion.condition] if fusion.condition is not None else None
    if condition is not None:
        fusion.check_alignment(inputs, condition)
    if not fusion.reads_tiles:
        check_tiles(dict(zip(fusion.inputs, inputs, strict=True)))
    return fusion.layout(inputs)
