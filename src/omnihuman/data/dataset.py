"""Records -> samples that are planned before anything is decoded, and decoded and packed on access."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from omnihuman.data import media
from omnihuman.data.augment import AudioAugment
from omnihuman.data.bad_sample import BadSample, explain_unexpected
from omnihuman.data.chat import Chat
from omnihuman.data.collate import Packable, pack
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.exclusion import Description, Identity
from omnihuman.data.face import FaceInput
from omnihuman.data.features import FeatureIndex
from omnihuman.data.packing import Budgets, MicroBatch
from omnihuman.data.plan.clip_headers import add_source
from omnihuman.data.plan.planned import Plan, PlanList, Planned
from omnihuman.data.plan.planning import (
    Layouts,
    Planner,
    Policy,
    describe_place,
    describe_skipped,
    encode_record,
)
from omnihuman.data.reader.base import LongAudio, ReadOptions, load_readers
from omnihuman.data.record import Entry, Record
from omnihuman.data.sharing import select_part
from omnihuman.data.steps import FrameSteps
from omnihuman.data.views import Missing, ViewSelection
from omnihuman.modality import BY_FIELD, INSTRUCTION, View
from omnihuman.nn.tiles import Tiles
from omnihuman.types import Batch, Features, Sample

log = logging.getLogger(__name__)

Transforms = Mapping[str, tuple[str, Callable[[Any], Tensor]]]
"""Encoder -> the field of a sample that it reads, and what makes time steps ``[T ...]`` of it."""


class Samples(Dataset[Batch]):
    """A map from ``MicroBatch`` to ``Batch``, which a worker of a loader evaluates.

    Args:
        records: in order.
        transforms: by encoder name, the field of a sample that it reads and its transform.
        layouts: amounts by field -> tokens by slot.
        chat: builds prompts.
        num_frames: frames of a video; an image has one.
        sampling: of these frames, see ``data.decode.sampling``.
        time_instruction: the text after a video, with ``{num_frames}`` and ``{seconds}``; ``None`` for none.
        tiles: into which images are cut, ``None`` for images that are one frame.
        face: crops faces, for encoders that read them.
        augment: changes the audio of every epoch.
        views: each record is used once per view that leaves something of it. Without views: once, as it is. A model
            that reads the instruction gets each answer of a conversation as a sample, see ``split_turns``.
        needs: slots that every file must be able to fill, besides those that its record needs.
        missing: what happens to a record whose text names a slot that its file cannot fill: ``absent`` removes the
            slot from the text, ``fill`` uses the official filler (10 s of silence, one black frame).
        long_audio: ``windows`` reads all audio, in windows of 30 s. ``first`` reads 30 s of a question's audio, and a
            training sample with more is bad.
        policy: what happens to a sample that cannot be used.
        excluded: samples that are skipped from the start.
        quarantine_file: list to which ``quarantine`` adds bad files, one JSON object per line.
        timeout: seconds per file.
        prompts: end every sample where the answer to its question begins, for generation.
        exact: resize frames of videos as the official code does; false: while colors are converted, which is faster.

    Raises:
        BadSample: a sample cannot be used and the policy is ``raise``.
    """

    def __init__(
        self,
        records: Iterable[Entry],
        transforms: Transforms,
        layouts: Layouts,
        chat: Chat,
        *,
        num_frames: int,
        sampling: Sampling = "midpoints",
        time_instruction: str | None = None,
        tiles: Tiles | None = None,
        face: FaceInput | None = None,
        augment: AudioAugment | None = None,
        views: Sequence[View] = (),
        needs: Sequence[str] = (),
        missing: Missing = "absent",
        long_audio: LongAudio = "windows",
        policy: Policy = "raise",
        excluded: Mapping[Identity, Description] | None = None,
        quarantine_file: Path | None = None,
        timeout: float = 60.0,
        prompts: bool = False,
        exact: bool = True,
    ) -> None:
        self.transforms, self.layouts, self.chat, self.policy = dict(transforms), layouts, chat, policy
        options = (num_frames, face or FaceInput(), augment, long_audio, prompts, sampling, time_instruction, tiles)
        self.readers = load_readers(ReadOptions(*options, exact))
        self.fields = {field for field, _ in self.transforms.values() if field != INSTRUCTION}
        by_turn = any(field == INSTRUCTION for field, _ in self.transforms.values())
        self.selection = ViewSelection(self.readers, views, needs, missing, by_turn=by_turn, prompts=prompts)
        self.timeout, self.prompts, self.augment = timeout, prompts, augment
        self._last_clip: tuple[Any, media.Clip] | None = None
        self.cached: FeatureIndex | None = None
        self.planner: Planner | None = Planner(
            self.readers,
            self.fields,
            layouts,
            chat,
            self.selection,
            policy=policy,
            excluded=excluded or {},
            quarantine_file=quarantine_file,
            timeout=timeout,
            prompts=prompts,
        )
        self.planned: Plan
        self.use(PlanList(self.planner(records), self.planner.report))

    def __len__(self) -> int:
        return len(self.planned)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"planner": None}  # it holds a method of the model; workers do not plan

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sample."""
        return self.planned.lengths

    @property
    def targets(self) -> NDArray[np.int32]:
        """Supervised tokens of each sample."""
        return self.planned.targets

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """Descriptions of the samples that are not planned."""
        return self.planned.report.skipped

    @property
    def cut_answers(self) -> list[str]:
        """Places and ids of the samples of whose answers ``max_length`` has cut something."""
        return self.planned.report.cut_answers

    def __getitem__(self, micro_batch: MicroBatch) -> Batch:
        """Decode and pack samples; a bad one is skipped and reported, never replaced.

        Samples of the same part of a clip that follow each other are decoded once.
        """
        samples, skipped = [], []
        for index in micro_batch.indices:
            planned = self.planned[index]
            try:
                samples.append(self._load(planned, index, micro_batch.epoch))
            except BadSample as bad:
                file, is_question = planned.quarantine_file, self.prompts
                skipped.append(describe_skipped(self.policy, planned.record, bad, file, is_question=is_question))
        self._last_clip = None
        cached_blanks = self.cached.blanks if self.cached else None
        return pack(samples, self.blanks, micro_batch.step_targets, skipped, cached_blanks, micro_batch.step_samples)

    @property
    def num_unlocated(self) -> int:
        """Samples with frames whose faces an encoder reads, but no box and no detector locates."""
        return self.planned.report.num_unlocated

    @cached_property
    def blanks(self) -> dict[str, Tensor]:
        """One time step ``[1 ...]`` of zeros for each encoder."""
        blanks = {}
        for name, (field, transform) in self.transforms.items():
            value = "" if field == INSTRUCTION else BY_FIELD[field].blank()
            blanks[name] = torch.zeros_like(transform(value)[:1])
        return blanks

    def is_audio_cut(self, planned: Planned) -> bool:
        """Return true if the clip has more audio than is read."""
        num_samples = planned.header.num_samples(*planned.record.audio_span)
        reader = self.readers["waveform"]
        return num_samples > reader.count_in_file(planned.amounts["waveform"], planned.record, planned.header) > 0

    def limit(self, budgets: Mapping[str, float | None]) -> Budgets | None:
        """Return limits of a micro-batch.

        Args:
            budgets: frames and seconds of audio, by field; ``None`` for no limit.
        """
        limits = {field: float(limit) for field, limit in budgets.items() if limit is not None}
        units = {"waveform": media.SAMPLE_RATE}

        def measure(index: int) -> tuple[float, ...]:
            amounts = self.planned[index].amounts
            return tuple(amounts.get(field, 0) / units.get(field, 1) for field in limits)

        return Budgets(tuple(limits.values()), lru_cache(1024)(measure)) if limits else None

    def use(self, plan: Plan) -> None:
        """Take a plan that was made with these options."""
        self.planned = plan
        if self.policy != "raise" or not self.prompts:  # the notes of a single question are shown with its answer
            self._log_notes()

    # ------------------------------------------------------------------------------------------------------- decoding

    def sample(self, planned: Planned, names: Collection[str] | None = None) -> Sample:
        """Decode one sample.

        Args:
            planned: the sample.
            names: of encoders: decode only what these read, and frames and faces as their time steps (``data.steps``);
                ``None`` for all encoders, with all pixels of the file.

        Raises:
            BadSample: a file does not hold what its header promises.
        """
        first, *more = [self._decode(clip, planned, names) for clip in planned.record.clips]
        return replace(first, more=tuple(more))

    def _decode(self, record: Record, planned: Planned, names: Collection[str] | None) -> Sample:
        transforms = [self.transforms[name] for name in (self.transforms if names is None else names)]
        needed = self.fields.intersection(field for field, _ in transforms) - set(record.hidden)
        take = None if names is None else FrameSteps(record, self.readers, transforms)
        decoded = set[str]().union(*(self.readers[field].decodes for field in needed))
        amounts = {field: planned.amounts[field] for field in decoded}
        num_samples = self.readers["waveform"].count_in_file(amounts.get("waveform", 0), record, planned.header)
        num_frames = self.readers["frames"].count_in_file(amounts.get("frames", 0), record, planned.header)
        sampling = self.readers["frames"].options.sampling
        part = (select_part(record), record.faces, record.tiling, num_frames, num_samples, names and tuple(names))
        if self._last_clip is None or self._last_clip[0] != part:
            clip = media.read_clip(record, planned.header, num_frames, num_samples, self.timeout, sampling, take)
            self._last_clip = None if names is None else (part, clip)  # all pixels of a file are not held
        else:
            clip = self._last_clip[1]
        values = {}
        for field in BY_FIELD:
            if field in needed | decoded and field not in record.hidden:
                value = self.readers[field].read(record, clip)
                if value is not None:
                    values[field] = value
        _, answer = record.messages[-1]
        meta = {"id": record.id, "task": record.task, "answer": answer.strip(), "times": list(clip.times)}
        return Sample(values, record.messages, {**meta, **record.meta, "audio_gaps": list(clip.gaps)})

    def to_packable(self, planned: Planned, sample: Sample, features: Mapping[str, Features] | None = None) -> Packable:
        """Return a decoded sample as signals and ids; encoders with cached features get no signal."""
        ids, labels = encode_record(self.chat, planned.record, planned.counts, prompts=self.prompts)
        features = features or {}
        signals, masks = self._to_signals(planned, sample, features)
        more = []
        for image in sample.more:
            image_signals, image_masks = self._to_signals(planned, image, features)
            more.append(Packable(image_signals, [], [], masks=image_masks, tiling=planned.record.tiling))
        return Packable(signals, ids, labels, sample.meta, masks, features, tuple(more), planned.record.tiling)

    def _to_signals(
        self, planned: Planned, sample: Sample, features: Mapping[str, Features]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return signals and masks of a sample, or of one of its images, by encoder."""
        signals, masks = dict[str, Tensor](), dict[str, Tensor]()
        for name, (field, transform) in self.transforms.items():
            if name in features:
                continue
            if field == INSTRUCTION:
                signals[name] = transform(self.chat.instruct(sample))
                continue
            blank = self.blanks[name]
            amount = planned.amounts[BY_FIELD[field].planned_from]
            if field in planned.record.hidden and amount:
                signals[name] = blank.expand(amount, *blank.shape[1:])
                masks[name] = torch.zeros(amount, dtype=torch.bool)
            elif field in sample.media:
                signals[name], mask = self.readers[field].to_signal(sample.media[field], transform, blank)
                if mask is not None:
                    masks[name] = mask
        return signals, masks

    def _load(self, planned: Planned, index: int, epoch: int) -> Packable:
        if self.augment:
            self.augment.start(planned.record.id, epoch)
        features, times = self.cached.load(index) if self.cached else ({}, [])
        try:
            sample = self.sample(planned, [name for name in self.transforms if name not in features])
            packable = self.to_packable(planned, sample, features)
        except BadSample as bad:
            raise add_source(bad, planned.record) from bad
        except Exception as error:
            raise explain_unexpected(error, describe_place(planned.record), self.policy) from error
        return replace(packable, meta={**packable.meta, "times": packable.meta["times"] or times})

    def _log_notes(self) -> None:
        """Log how many files have several streams of a kind, and which one of the first is read."""
        notes = self.planned.report.stream_notes
        if notes:
            log.warning("several streams of a kind in %d places: %s", len(notes), next(iter(notes)))
