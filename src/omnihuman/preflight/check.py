"""Check of records: planned and decoded by the functions of training, so that the verdict is the same."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnihuman.data.dataset import Samples
from omnihuman.data.face import build_track, interpolate_box
from omnihuman.data.media import Header
from omnihuman.data.module import OmniData
from omnihuman.data.plan.planned import Planned
from omnihuman.data.record import BadSample, Record
from omnihuman.modality import BY_FIELD
from omnihuman.types import Sample

MAX_HASHED_SIDE = 128
"""Pixels of the longer side of a frame that is hashed completely; of larger frames, only every other row and column."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why training cannot use a sample.

    Attributes:
        id: of the record; with the view, if only that cannot be used.
        file: of the record, empty for an invalid record.
        reason: short code, see ``BadSample``.
        message: with the place of the record.
        is_view: the record's other views can be used.
    """

    id: str
    file: str
    reason: str
    message: str
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """The decoded content of a clip.

    Attributes:
        frames: hash of the selected frames, empty without frames.
        audio: hash of the waveform, empty without audio.
        is_moving: the selected frames differ.
        num_frames: selected frames.
        num_faces: those of them with a face; ``None`` where neither boxes nor a detector locate faces.
        peak: largest absolute value of the waveform, ``None`` without audio.
    """

    frames: str = ""
    audio: str = ""
    is_moving: bool = False
    num_frames: int = 0
    num_faces: int | None = None
    peak: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the check of one record.

    Attributes:
        problems: one for each sample that training would skip: the record, or some of its views.
        lengths: tokens of each usable view.
        num_cut: usable views whose answer ``max_length`` cuts.
        dropped: slots of the text that the files cannot fill, and that are removed.
        seconds: duration of the clip according to the header; 0 for an image.
        has_audio: the files hold audio.
        is_located: boxes or a detector locate the faces that the model reads; ``None`` where it reads none.
        content: of the clip.
    """

    problems: tuple[Problem, ...] = ()
    lengths: tuple[int, ...] = ()
    num_cut: int = 0
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0
    has_audio: bool = False
    is_located: bool | None = None
    content: Content = Content()


@dataclass(frozen=True, slots=True)
class Job:
    """Records of one file, which are checked together so that a clip is decoded once.

    Attributes:
        numbers: of the records in the whole check.
        records: of the file.
    """

    numbers: tuple[int, ...]
    records: tuple[Record, ...]

    def split(self) -> "list[Job]":
        """Return a job for each record."""
        return [Job((number,), (record,)) for number, record in zip(self.numbers, self.records, strict=True)]


class Checker:
    """Checks the records of a job: plan, decode, measure. No error of a record ends it.

    Args:
        data: connected to a model.
    """

    def __init__(self, data: OmniData) -> None:
        self.data = data

    def __call__(self, job: Job) -> list[Verdict]:
        """Return the verdict on each record of a job."""
        decoded: dict[Any, _Outcomes] = {}
        verdicts = []
        for record, samples, planned in self._plan(job.records):
            try:
                outcomes = decoded.setdefault(_identify_clip(record), _Outcomes())
                verdicts.append(_check_planned(record, samples, planned, outcomes))
            except Exception as error:
                verdicts.append(Verdict(problems=(describe_error(record, error),)))
        return verdicts

    def _plan(self, records: Sequence[Record]) -> Iterable[tuple[Record, Samples | Exception, Sequence[Planned]]]:
        """Yield each record with its planned views; planned alone where some record of the file is skipped."""
        samples = self._plan_safely(records)
        planned_of: dict[str, list[Planned]] = {record.location: [] for record in records}
        has_places = len(planned_of) == len(records)
        if isinstance(samples, Samples) and not samples.skipped and has_places:
            for planned in samples.planned:
                planned_of[planned.record.location].append(planned)
            for record in records:
                yield record, samples, planned_of[record.location]
            return
        for record in records:
            alone = samples if len(records) == 1 else self._plan_safely([record])
            yield record, alone, alone.planned if isinstance(alone, Samples) else []

    def _plan_safely(self, records: Sequence[Record]) -> Samples | Exception:
        try:
            return self.data.plan_entries(records)
        except Exception as error:
            return error


class _Outcomes:
    """The decoded content of a clip, and the errors of what of it cannot be decoded."""

    def __init__(self) -> None:
        self.contents: list[tuple[frozenset[tuple[str, int]], Content]] = []
        self.errors: dict[frozenset[tuple[str, int]], Exception] = {}

    def find(self, amounts: frozenset[tuple[str, int]]) -> Content | None:
        """Return a content that was decoded with these amounts or more."""
        return next((content for decoded, content in self.contents if amounts <= decoded), None)


def describe_error(record: Record, error: Exception) -> Problem:
    """Return an error as the problem of a record; training treats every exception of a sample alike."""
    reason, message = "unreadable", f"{type(error).__name__}: {error}"
    if isinstance(error, BadSample):
        reason, message = error.reason, str(error)
    file = "" if record.kind == "text" else str(record.file)
    return Problem(record.id, file, reason, f"{record.location} ({record.id}): {message}")


def _check_planned(
    record: Record, samples: Samples | Exception, planned: Sequence[Planned], outcomes: _Outcomes
) -> Verdict:
    if isinstance(samples, Exception):
        raise samples
    lengths, num_cut = list[int](), 0
    problems = [Problem(**bad) for bad in samples.skipped]
    content = Content()
    # the view that needs most comes first, so that the clip is decoded once
    for view in sorted(planned, key=lambda view: -len(_list_amounts(samples, view))):
        try:
            content = _merge(content, _decode(samples, view, outcomes))
        except Exception as error:
            problems.append(describe_error(view.record, error))
            continue
        lengths.append(view.length)
        num_cut += f"{view.record.location} ({view.record.id})" in samples.cut_answers
    if not planned:
        return Verdict(problems=tuple(problems))
    header, slots = planned[0].header, set[str]().union(*(view.record.slots for view in planned))
    return Verdict(
        problems=tuple(problems),
        lengths=tuple(lengths),
        num_cut=num_cut,
        dropped=tuple(slot for slot in record.slots if slot not in slots and slot not in header.slots),
        seconds=measure_seconds(record, header),
        has_audio=header.has_audio,
        is_located=_find_located(samples, planned),
        content=content,
    )


def _identify_clip(record: Record) -> tuple[Any, ...]:
    """Return all of a record that decides what is decoded, besides the amounts."""
    second = (record.second_clip, record.second_clip_span)
    audio = (record.audio_track, record.audio_span)
    return record.file, record.more_images, record.kind, record.span, record.fps, audio, second, record.faces


def _list_amounts(samples: Samples, planned: Planned) -> frozenset[tuple[str, int]]:
    """Return the fields that encoders read of a sample, with their amounts."""
    fields = samples.fields - set(planned.record.hidden)
    amounts = {field: planned.amounts[BY_FIELD[field].planned_from] for field in fields}
    return frozenset((field, amount) for field, amount in amounts.items() if amount)


def _decode(samples: Samples, planned: Planned, outcomes: _Outcomes) -> Content:
    """Return the content of a sample, decoded unless an equal or larger part of the clip was decoded before."""
    amounts = _list_amounts(samples, planned)
    content = outcomes.find(amounts)
    if content is not None:
        return content
    if amounts not in outcomes.errors:
        try:
            content = measure_content(samples.sample(planned), planned.record, samples)
        except Exception as error:
            outcomes.errors[amounts] = error
        else:
            outcomes.contents.append((amounts, content))
            return content
    raise outcomes.errors[amounts]


def measure_content(sample: Sample, record: Record, samples: Samples) -> Content:
    """Return hashes, faces and loudness of a decoded sample."""
    frames, waveform = sample.frames, sample.waveform
    num_faces, audio, peak = None, "", None
    if waveform is not None:
        peak = float(waveform.abs().max())
        audio = _hash((waveform * 32767).round().to(torch.int16))
    if frames is None:
        return Content(audio=audio, peak=peak)
    face = samples.readers["faces"].options.face
    if "faces" in sample.media and face.can_locate(record.faces):
        num_faces = sum(crop is not None for crop in sample.faces)
    elif record.faces is not None and all(entry.time is not None for entry in record.faces):
        track = build_track(record.faces)
        num_faces = sum(interpolate_box(track, time) is not None for time in sample.meta["times"])
    is_moving = bool((frames != frames[:1]).any())
    return Content(_hash_frames(frames), audio, is_moving, len(frames), num_faces, peak)


def _hash_frames(frames: Tensor) -> str:
    """Return a hash of frames ``[T 3 H W]``."""
    stride = max(1, max(frames.shape[-2:]) // MAX_HASHED_SIDE)
    return _hash(frames[..., ::stride, ::stride].contiguous())


def _hash(values: Tensor) -> str:
    digest = hashlib.blake2b(str(tuple(values.shape)).encode(), digest_size=16)
    digest.update(values.numpy().data)
    return digest.hexdigest()


def _merge(content: Content, other: Content) -> Content:
    """Return the content of two views of a record."""
    faces = [number for number in (content.num_faces, other.num_faces) if number is not None]
    peaks = [peak for peak in (content.peak, other.peak) if peak is not None]
    return Content(
        content.frames or other.frames,
        content.audio or other.audio,
        content.is_moving or other.is_moving,
        max(content.num_frames, other.num_frames),
        max(faces, default=None),
        max(peaks, default=None),
    )


def measure_seconds(record: Record, header: Header) -> float:
    """Return the duration of a clip in seconds, as far as the header tells; 0 for an image."""
    if header.is_still or record.kind == "text":
        return 0.0
    last = max(header.audio[1], header.num_frames / header.fps)
    if record.end is not None:
        last = min(last, record.end) if last else record.end
    return max(0.0, last - record.start)


def _find_located(samples: Samples, planned: Sequence[Planned]) -> bool | None:
    visible = [view for view in planned if view.amounts["frames"] and "faces" not in view.record.hidden]
    if "faces" not in samples.fields or not visible:
        return None
    return any(samples.readers["faces"].options.face.can_locate(view.record.faces) for view in visible)


def hash_file(file: Path) -> str:
    """Return a hash of the bytes of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def group_jobs(records: Iterable[tuple[int, Record]], max_records: int = 64) -> list[Job]:
    """Return the records as jobs: those of one file together, at most ``max_records`` of them.

    Args:
        records: each with its number.
        max_records: of a job, so that a file with many records does not leave the other processes idle.
    """
    by_file: dict[Collection[Any], list[tuple[int, Record]]] = {}
    for number, record in records:
        by_file.setdefault(record.files, []).append((number, record))
    jobs = []
    for members in by_file.values():
        # a clip of the file is decoded in one job
        members.sort(key=lambda member: (member[1].start, member[1].end or 0.0, member[0]))
        for start in range(0, len(members), max_records):
            numbers, chunk = zip(*members[start : start + max_records], strict=True)
            jobs.append(Job(numbers, chunk))
    return jobs
