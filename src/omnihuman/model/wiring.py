"""The wiring of a model: binding of fields, widths along the streams, and the checks of both."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from omnihuman.encoder.base import Encoder
from omnihuman.fusion.base import Fusion
from omnihuman.modality import INSTRUCTION, SLOTS, check_field, fields_of_slot
from omnihuman.projector.base import Projector
from omnihuman.types import Width

_T = TypeVar("_T")


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Put the name of a part in front of a ``ValueError`` that it raises."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error


def bind_fields(encoders: Mapping[str, Encoder], reads: Mapping[str, str]) -> dict[str, str]:
    """Return the field of a sample that each encoder reads: the one that ``reads`` names, else the encoder's default.

    Raises:
        ValueError: ``reads`` names an unknown encoder, or a field that its encoder cannot read.
    """
    if unknown := sorted(set(reads) - set(encoders)):
        raise ValueError(f"reads: unknown encoders {unknown}; the encoders are {sorted(encoders)}.")
    bound = {}
    for name, encoder in encoders.items():
        field = reads.get(name, encoder.sample_fields[0])
        check_field(field)
        if field not in encoder.sample_fields:
            raise ValueError(
                f"the model binds encoder {name!r} to {field}, but {type(encoder).__name__} reads "
                f"{' or '.join(encoder.sample_fields)}: choose another encoder, or set model.reads.{name}."
            )
        bound[name] = field
    return bound


def build_projectors(
    factories: Mapping[str, Callable[..., Projector]],
    projector_inputs: Mapping[str, str],
    conditions: Mapping[str, str],
    dims: Mapping[str, int],
    hidden_size: int,
) -> dict[str, Projector]:
    """Build every projector with the width of its input and that of the language model.

    Raises:
        ValueError: ``projector_inputs`` or ``conditions`` name a projector or a stream that does not exist, or a
            projector has a condition that it does not take, or none that it needs.
    """
    _check_streams("projector_inputs", projector_inputs, factories, dims)
    _check_streams("conditions", conditions, factories, dims)
    projectors = {}
    for name, factory in factories.items():
        with naming(f"projectors.{name} reads {projector_inputs[name]!r}"):
            projectors[name] = factory(in_dim=dims[projector_inputs[name]], out_dim=hidden_size)
    for name, projector in projectors.items():
        _check_condition(name, projector, conditions.get(name), dims)
    return projectors


def build_fusions(
    group: str, factories: Mapping[str, Callable[..., Fusion]], dims: dict[str, int]
) -> tuple[dict[str, Fusion], dict[str, int]]:
    """Build the fusions in order, each with the widths that the fusions before it leave."""
    fusions = {}
    for name, factory in factories.items():
        with naming(f"{group}.{name}"):
            fusion = factory(dims=dims)
        fusions[name] = fusion
        dims = fusion.replace_inputs(dims, fusion.out_dim)
    return fusions, dims


def replace_inputs(
    streams: Mapping[str, _T], projector_inputs: Mapping[str, str], projected: Mapping[str, _T]
) -> dict[str, _T]:
    """Return the streams (or widths, or layouts) with the projected ones in place of their inputs.

    A stream that no projector reads, such as the instruction, stays.
    """
    remaining = {name: stream for name, stream in streams.items() if name not in projector_inputs.values()}
    return remaining | dict(projected)


def encoder_widths(encoders: Mapping[str, Encoder]) -> dict[str, int]:
    """Return the width of every encoder's stream, with those of its levels."""
    return {name: Width(encoder.out_dim, encoder.level_dims) for name, encoder in encoders.items()}


def check_instruction(reads: Mapping[str, str], inputs: Collection[str]) -> None:
    """Check that the instruction is used as a condition only: its text is a part of the prompt already.

    Raises:
        ValueError: a projector or a fusion reads it as an input.
    """
    if wrong := sorted(name for name, field in reads.items() if field == INSTRUCTION and name in inputs):
        raise ValueError(
            f"the streams {wrong} are the instruction, which the prompt contains already and which fills no slot: use "
            "them as the `condition` of a fusion, or in the `conditions` of a projector."
        )


def check_ends(dims: Mapping[str, int], conditions: Collection[str | None], hidden_size: int) -> None:
    """Check that every stream ends in a slot or as a condition, and that slots have the language model's width.

    Raises:
        ValueError: a stream is never used, or a slot has another width.
    """
    if unused := sorted(set(dims) - set(SLOTS) - set(conditions)):
        raise ValueError(
            f"the streams {unused} end nowhere: no fusion reads them, and the slots are {', '.join(SLOTS)}. Add a "
            "fusion or a projector of that name, or drop what makes them."
        )
    if wrong := {slot: dims[slot] for slot in SLOTS if dims.get(slot, hidden_size) != hidden_size}:
        raise ValueError(f"the slots {wrong} do not have the language model's width {hidden_size}: add projectors.")


def check_slots(reads: Mapping[str, str], encoders_of: Mapping[str, Collection[str]]) -> None:
    """Check that a slot is filled from what its placeholder stands for.

    Args:
        reads: field that each encoder reads.
        encoders_of: encoders from which each slot is filled.

    Raises:
        ValueError: none of a slot's encoders reads one of its fields.
    """
    for slot, names in encoders_of.items():
        fields = {name: reads[name] for name in sorted(names)}
        slot_fields = fields_of_slot(slot)
        if fields and not set(fields.values()) & set(slot_fields):
            raise ValueError(
                f"the slot <{slot}> stands for {' or '.join(slot_fields)}, but its encoders read {fields}: "
                f"choose an encoder that reads {slot_fields[0]}."
            )


def _check_streams(key: str, wiring: Mapping[str, str], projectors: Collection[str], dims: Mapping[str, int]) -> None:
    if unknown := sorted(set(wiring) - set(projectors)):
        raise ValueError(f"{key}: unknown projectors {unknown}; the projectors are {sorted(projectors)}.")
    if missing := {name: stream for name, stream in wiring.items() if stream not in dims}:
        raise ValueError(f"{key}: unknown streams {missing}; the streams at this point are {dict(dims)}.")


def _check_condition(name: str, projector: Projector, condition: str | None, dims: Mapping[str, int]) -> None:
    kind = type(projector).__name__
    if condition is None and projector.condition_dim is not None:
        raise ValueError(
            f"projectors.{name}: {kind} needs a condition of width {projector.condition_dim}, got none; the streams "
            f"at this point are {dict(dims)}. Name one in the model's conditions, or choose a preset without one."
        )
    if condition is not None and projector.condition_dim is None:
        raise ValueError(
            f"projectors.{name}: {kind} takes no condition, got conditions.{name}={condition}: remove it, or choose a "
            "preset with a condition."
        )
    if condition is not None and dims[condition] != projector.condition_dim:
        raise ValueError(
            f"projectors.{name}: {kind} needs a condition of width {projector.condition_dim}, got {condition!r} of "
            f"width {dims[condition]}: choose another encoder for it."
        )
