"""Selection of the parts that fill a slot."""

from collections.abc import Mapping, Set

from omnihuman.fusion.base import Fusion


def select_parts(
    slots: Set[str],
    *,
    early_fusions: dict[str, Fusion],
    projector_inputs: Mapping[str, str],
    conditions: Mapping[str, str],
    fusions: dict[str, Fusion],
) -> set[str]:
    """Return the parts that fill these slots, as ``group.name``: from the slots back to the encoders."""
    streams, parts = set(slots), set[str]()
    _select_fusions("fusions", fusions, streams, parts)
    projectors = [name for name in projector_inputs if name in streams]
    streams.difference_update(projectors)
    for name in projectors:
        parts.add(f"projectors.{name}")
        streams.add(projector_inputs[name])
        if name in conditions:
            streams.add(conditions[name])
    _select_fusions("early_fusions", early_fusions, streams, parts)
    return parts | {f"encoders.{name}" for name in streams}


def _select_fusions(group: str, fusions: dict[str, Fusion], streams: set[str], parts: set[str]) -> None:
    """Add the fusions that make one of ``streams`` to ``parts``, and replace their outputs in ``streams``."""
    for name, fusion in reversed(fusions.items()):
        if fusion.output in streams:
            parts.add(f"{group}.{name}")
            streams.remove(fusion.output)
            streams.update(fusion.inputs)
            if fusion.condition is not None:
                streams.add(fusion.condition)
