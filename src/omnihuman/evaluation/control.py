"""The view of an evaluation, and controls: the audio or the frames of another question, or a branch that is changed."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from omnihuman.benchmark.base import Benchmark, Question
from omnihuman.data.record import Record
from omnihuman.fusion.base import Fusion
from omnihuman.modality import View
from omnihuman.types import Features, Streams

CONTROLS = {"shuffled_audio": View("A"), "shuffled_video": View("VF")}
"""Control -> modalities that it replaces."""

BRANCH_CONTROLS = ("drop_branch", "only_branch")
"""Controls of one input of a fusion, as in ``drop_branch:face``: it is zeros, or it stands for all inputs."""


def select_view(benchmark: Benchmark, model_view: View, requested: str | None) -> View:
    """Return the view in which a model answers a benchmark.

    Args:
        benchmark: has a default view.
        model_view: modalities that the model reads.
        requested: view of the user, ``None`` for the benchmark's.

    Raises:
        ValueError: the view is unknown, or the model reads nothing of it.
    """
    view = View.parse(benchmark.view if requested is None else requested)
    usable = view & model_view
    if not usable:
        cause = f"{benchmark.name} is about {view}" if requested is None else f"view={requested}"
        raise ValueError(f"{cause}, but the model reads {model_view} only; choose another view or model.")
    return usable


def parse_control(requested: str | None, view: View) -> str:
    """Return the name of a control, or the empty string for none.

    Raises:
        ValueError: the control is unknown, or the view has nothing that it replaces.

    >>> parse_control("shuffled_audio", View("VA"))
    'shuffled_audio'
    """
    if not requested:
        return ""
    if requested.partition(":")[0] in BRANCH_CONTROLS:
        return requested  # the model has the names of its branches, see change_branch
    if requested not in CONTROLS:
        raise ValueError(f"control={requested}: unknown; choose from {_list_controls()}, or leave it out.")
    if not CONTROLS[requested] & view:
        raise ValueError(f"control={requested}: view={view} has nothing to shuffle; leave one of them out.")
    return requested


def _list_controls() -> str:
    return ", ".join([*CONTROLS, *(f"{control}:<branch>" for control in BRANCH_CONTROLS)])


def change_branch(fusions: Iterable[Fusion], control: str) -> None:
    """Let fusions run without one branch, or with one branch in place of all; another control changes nothing.

    A branch is an input of a fusion with several inputs: ``face`` of HumanOmni's gate. ``drop_branch:face`` makes its
    tokens zeros: the other branches keep their weights, unless the fusion computes them from the tokens.
    ``only_branch:face`` puts it in place of the other ones, so that weights with the sum 1 no longer matter.

    Raises:
        ValueError: the model has no such branch.
    """
    kind, _, name = control.partition(":")
    if kind not in BRANCH_CONTROLS:
        return
    branches: dict[str, list[Fusion]] = {}
    for fusion in fusions:
        for branch in fusion.inputs if len(fusion.inputs) > 1 else ():
            branches.setdefault(branch, []).append(fusion)
    if name not in branches:
        raise ValueError(f"control={control}: the model has no such branch; expected one of {sorted(branches)}.")
    for fusion in branches[name]:
        fusion.register_forward_pre_hook(partial(_replace_inputs, kind=kind, name=name))


def _replace_inputs(fusion: Any, arguments: tuple[Streams], *, kind: str, name: str) -> tuple[Streams]:
    """Return the arguments of a fusion under a control of one branch."""
    (streams,) = arguments
    stream = streams[name]
    if kind == "drop_branch":
        return ({**streams, name: _blank(stream)},)
    shapes = {branch: tuple(streams[branch].tokens.shape) for branch in fusion.inputs}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"control={kind}:{name}: one branch replaces others of its shape only, got {shapes}.")
    return (streams | dict.fromkeys(fusion.inputs, stream),)


def _blank(stream: Features) -> Features:
    levels = tuple(_blank(level) for level in stream.levels)
    return replace(stream, tokens=torch.zeros_like(stream.tokens), levels=levels)


def select_donors(questions: Sequence[Question], control: str, seed: int = 0) -> dict[str, Record]:
    """Return, by question id, the record whose audio or frames a control uses; never one of the same file.

    Raises:
        ValueError: all questions are about one file.
    """
    if control not in CONTROLS:
        return {}
    records = [question.record for question in questions]
    random.Random(seed).shuffle(records)
    donors = {}
    for position, record in enumerate(records):
        donor = _find_donor(records, position)
        if donor is None:
            raise ValueError(f"control={control}: all questions are about one file, so nothing can be shuffled.")
        donors[record.id] = donor
    return donors


def _find_donor(records: Sequence[Record], position: int) -> Record | None:
    """Return the next record after a position, in a circle, with another file."""
    for step in range(1, len(records)):
        candidate = records[(position + step) % len(records)]
        if candidate.file != records[position].file:
            return candidate
    return None


def apply_view(record: Record, view: View, control: str = "", donor: Record | None = None) -> Record | None:
    """Return the record of a question in a view and under a control; ``None`` if the view leaves nothing of it."""
    viewed = record.restrict(view)
    if viewed is None or donor is None:
        return viewed
    if control == "shuffled_audio":
        return replace(
            viewed,
            audio_track=donor.audio_track or donor.file,
            audio_track_span=donor.audio_span,
            audio_stream=donor.audio_stream,
        )
    return replace(
        viewed,
        file=donor.file,
        kind=donor.kind,
        video_stream=donor.video_stream,
        faces=donor.faces,
        start=donor.start,
        end=donor.end,
        fps=donor.fps,
        second_clip=donor.second_clip,
        second_clip_span=donor.second_clip_span,
        audio_track=record.audio_track or record.file,
        audio_track_span=record.audio_span,
    )
