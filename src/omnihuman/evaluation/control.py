"""What a question may use: a modality, and for the control the sound or the pictures of another question."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from omnihuman.benchmark.base import MODALITIES, Benchmark, Question
from omnihuman.data.record import Record

CONTROLS = ("", "shuffled_audio", "shuffled_video")


def modality_of(benchmark: Benchmark, senses: str, asked: str | None) -> str:
    """The modality in which a model answers a benchmark.

    Args:
        benchmark: says what it is about.
        senses: letters of what the model reads.
        asked: what the user wants; ``None`` for all that both have.

    Raises:
        ValueError: the modality is unknown, or the model lacks a sense that it needs.
    """
    if asked is None:
        found = "".join(letter for letter in benchmark.modality if letter in senses)
        if not found:
            raise ValueError(f"{benchmark.name} is about {benchmark.modality}, the model reads {senses} only.")
        return found
    asked = next((name for name in MODALITIES if sorted(name) == sorted(str(asked).upper())), asked)  # AV is VA
    if asked not in MODALITIES:
        raise ValueError(f"modality={asked}: choose from {', '.join(MODALITIES)}.")
    if lacking := [letter for letter in asked if letter not in senses]:
        raise ValueError(f"modality={asked}: the model has no encoder for {', '.join(lacking)}; it reads {senses}.")
    return asked


def control_of(asked: str | None, modality: str) -> str:
    """The control in which a modality is answered; nothing where none is asked for.

    Raises:
        ValueError: the control is unknown, or the modality has nothing that it could shuffle.

    >>> control_of("shuffled_audio", "VA")
    'shuffled_audio'
    """
    control = asked or ""
    if control not in CONTROLS:
        raise ValueError(f"control={control}: choose from {', '.join(filter(None, CONTROLS))}, or leave it out.")
    if control and not set("A" if control == "shuffled_audio" else "VF") & set(modality):
        raise ValueError(f"control={control}: modality={modality} has nothing that it could shuffle; leave one out.")
    return control


def donors_of(questions: Sequence[Question], control: str, seed: int = 0) -> dict[str, Record]:
    """For the control: whose sound or pictures every question gets; never its own file's.

    Raises:
        ValueError: all questions are about one file.
    """
    if not control:
        return {}
    records = [question.record for question in questions]
    order = list(range(len(records)))
    random.Random(seed).shuffle(order)
    donors = {}
    for place, index in enumerate(order):
        others = (records[order[(place + step) % len(order)]] for step in range(1, len(order)))
        donor = next((other for other in others if other.file != records[index].file), None)
        if donor is None:
            raise ValueError(f"control={control}: all questions are about one file; nothing can be shuffled.")
        donors[records[index].id] = donor
    return donors


def seen_as_asked(record: Record, modality: str, control: str = "", donor: Record | None = None) -> Record | None:
    """A question's record as the model gets it; ``None`` where the modality leaves nothing of it."""
    form = record.seen_as(MODALITIES[modality])
    if form is None or donor is None:
        return form
    if control == "shuffled_audio":
        return replace(form, sound=donor.sound or donor.file, sound_clip=donor.heard)
    own: dict[str, Any] = {"sound": record.sound or record.file, "sound_clip": record.heard}
    clip: dict[str, Any] = {
        "start": donor.start,
        "end": donor.end,
        "rate": donor.rate,
        "then": donor.then,
        "then_clip": donor.then_clip,
    }
    return replace(form, file=donor.file, kind=donor.kind, faces=donor.faces, **clip, **own)
