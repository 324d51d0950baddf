"""The view of an evaluation, and controls that replace the audio or the frames by those of another question."""

import random
from collections.abc import Sequence
from dataclasses import replace

from omnihuman.benchmark.base import Benchmark, Question
from omnihuman.data.record import Record
from omnihuman.modality import View

CONTROLS = {"shuffled_audio": View("A"), "shuffled_video": View("VF")}
"""Control -> modalities that it replaces."""


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
    if requested not in CONTROLS:
        raise ValueError(f"control={requested}: unknown; choose from {', '.join(CONTROLS)}, or leave it out.")
    if not CONTROLS[requested] & view:
        raise ValueError(f"control={requested}: view={view} has nothing to shuffle; leave one of them out.")
    return requested


def select_donors(questions: Sequence[Question], control: str, seed: int = 0) -> dict[str, Record]:
    """Return, by question id, the record whose audio or frames a control uses; never one of the same file.

    Raises:
        ValueError: all questions are about one file.
    """
    if not control:
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
