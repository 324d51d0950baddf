"""Records -> samples that are planned before anything is decoded, and decoded and packed on access."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from omnihuman.data import media
from omnihuman.data.augment import AudioAugment
from omnihuman.data.bad_sample import BadSample, explain_unexpected
from omnihuman.data.chat import Chat, read_texts
from omnihuman.data.collate import Packable, pack
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.exclusion import FILE_REASONS, Description, Identity, identify, quarantine
from omnihuman.data.face import FaceInput
from omnihuman.data.features import FeatureIndex
from omnihuman.data.packing import MicroBatch
from omnihuman.data.reader.base import LongAudio, ReadOptions, load_readers
from omnihuman.data.record import Entry, Record
from omnihuman.data.views import Missing, ViewSelection
from omnihuman.modality import BY_FIELD, INSTRUCTION, MODALITIES, View
from omnihuman.nn.tiles import Tiles
from omnihuman.types import IGNORE_INDEX, Batch, Features, Sample

log = logging.getLogger(__name__)

Policy = Literal["raise", "skip", "quarantine"]
Transforms = Mapping[str, tuple[str, Callable[[Any], Tensor]]]
"""Encoder -> the field of a sample that it reads, and what makes time steps ``[T ...]`` of it."""

Layouts = Callable[[Mapping[str, int]], Mapping[str, int]]
"""Amounts by field -> tokens by slot."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A sample whose size is known.

    Attributes:
        record: the record in one view.
        header: of its files.
        amounts: frames, audio samples ... by field.
        counts: tokens by slot.
        length: tokens of the prompt, slots expanded.
        targets: supervised tokens among them.
        quarantine_file: list that a bad file of the sample is added to.
    """

    record: Record
    header: media.Header
    amounts: Mapping[str, int]
    counts: Mapping[str, int]
    length: int
    targets: int
    quarantine_file: Path | None = None


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
    ) -> None:
        self.transforms, self.layouts, self.chat = dict(transforms), layouts, chat
        self.policy = policy
        options = (num_frames, face or FaceInput(), augment, long_audio, prompts, sampling, time_instruction, tiles)
        self.readers = load_readers(ReadOptions(*options))
        self.fields = {field for field, _ in self.transforms.values() if field != INSTRUCTION}
        by_turn = any(field == INSTRUCTION for field, _ in self.transforms.values())
        self.selection = ViewSelection(self.readers, views, needs, missing, by_turn=by_turn, prompts=prompts)
        self.excluded, self.quarantine_file = excluded or {}, quarantine_file
        self.timeout, self.prompts, self.augment = timeout, prompts, augment
        self.skipped: list[dict[str, Any]] = []
        self.cut_answers: list[str] = []
        self.cached: FeatureIndex | None = None
        self.planned = list(self._plan_all(list(records)))
        if policy != "raise" or not prompts:  # the notes of a single question are shown with its answer
            self._log_notes()

    def __len__(self) -> int:
        return len(self.planned)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"layouts": None}  # a method of the model; workers do not plan

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [planned.length for planned in self.planned]

    @property
    def targets(self) -> list[int]:
        """Supervised tokens of each sample."""
        return [planned.targets for planned in self.planned]

    def __getitem__(self, micro_batch: MicroBatch) -> Batch:
        """Decode and pack samples; a bad one is skipped and reported, never replaced."""
        samples, skipped = [], []
        for index in micro_batch.indices:
            planned = self.planned[index]
            try:
                samples.append(self._load(planned, index, micro_batch.epoch))
            except BadSample as bad:
                skipped.append(self._skip(planned.record, bad, planned.quarantine_file))
        cached_blanks = self.cached.blanks if self.cached else None
        return pack(samples, self.blanks, micro_batch.step_targets, skipped, cached_blanks, micro_batch.step_samples)

    @property
    def num_unlocated(self) -> int:
        """Samples with frames whose faces an encoder reads, but no box and no detector locates."""
        if "faces" not in self.fields:
            return 0
        face = self.readers["faces"].options.face
        visible = [entry for entry in self.planned if entry.amounts["frames"] and "faces" not in entry.record.hidden]
        return sum(not face.can_locate(entry.record.faces) for entry in visible)

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

    def append(self, samples: "Samples") -> None:
        """Add samples that were planned with the same options."""
        self.planned += samples.planned
        self.skipped += samples.skipped
        self.cut_answers += samples.cut_answers

    # ------------------------------------------------------------------------------------------------------- planning

    def _plan_all(self, records: list[Entry]) -> Iterator[Planned]:
        headers = self._probe_all(
            entry for entry in records if isinstance(entry, Record) and not self._is_excluded(entry)
        )
        for entry in records:
            if self._is_excluded(entry):
                self.skipped.append(dict(self.excluded[identify(entry)]))
                continue
            try:
                header, views = self._list_views(entry, headers)
            except BadSample as bad:
                self.skipped.append(self._skip(entry, bad, self.quarantine_file))
                continue
            for record, fillers in views:
                yield from self._plan_view(record, header, fillers)

    def _is_excluded(self, entry: Entry) -> bool:
        """Return true if a record is excluded in all of its views."""
        description = self.excluded.get(identify(entry))
        return description is not None and not description.get("is_view")

    def _probe_all(self, records: Iterable[Record]) -> dict[Path, media.Header | BadSample]:
        files: dict[Path, None] = {}
        for record in records:
            files.update(dict.fromkeys(record.files))

        def probe(file: Path) -> media.Header | BadSample:
            try:
                return media.probe(file, self.timeout)
            except BadSample as bad:
                return bad
            except Exception as error:
                unusable = explain_unexpected(error, str(file), self.policy)
                if isinstance(unusable, BadSample):
                    return unusable
                raise unusable from error

        with ThreadPoolExecutor(8) as pool:
            return dict(zip(files, pool.map(probe, files), strict=True))

    def _list_views(
        self, entry: Entry, headers: Mapping[Path, media.Header | BadSample]
    ) -> tuple[media.Header, list[tuple[Record, list[str]]]]:
        """Return the header of a record, and the record in each view with its fillers.

        Raises:
            BadSample: the record cannot be used in any view.
        """
        if not isinstance(entry, Record):
            raise entry[1]
        try:
            header = media.merge_headers(entry, headers)
        except BadSample as bad:
            raise _with_source(bad, entry) from bad
        return header, list(self.selection.select(entry, header))

    def _plan_view(self, record: Record, header: media.Header, fillers: Collection[str]) -> Iterator[Planned]:
        """Yield the sample of a record in one view, unless it is excluded or bad."""
        if description := self.excluded.get(identify(record)):
            self.skipped.append(dict(description))
            return
        try:
            planned = self._plan(record, header, fillers)
        except BadSample as bad:
            self.skipped.append(self._skip(record, bad, self.quarantine_file) | {"is_view": True})
        else:
            yield planned

    def _plan(self, record: Record, header: media.Header, fillers: Collection[str]) -> Planned:
        try:
            self._check_hidden(record)
            for field in self.fields:
                record = self.readers[field].prepare(record, header)
            amounts = self._count(record, header, fillers)
            counts = self.layouts(amounts)
            if empty := [slot for slot in record.slots if not counts.get(slot)]:
                raise BadSample("no_slot", f"this model has no encoder for {empty}; choose other data.views.")
            ids, labels = self._encode(record, counts)
        except BadSample as bad:
            raise _with_source(bad, record) from bad
        except Exception as error:
            raise explain_unexpected(error, _place(record), self.policy) from error
        targets = count_targets(labels)
        if self._is_cut(record, counts, len(ids), targets):
            self.cut_answers.append(f"{record.location} ({record.id})")
        return Planned(record, header, amounts, counts, len(ids), targets, self.quarantine_file)

    def _check_hidden(self, record: Record) -> None:
        """Check that an encoder reads something of every slot of which the view hides a part."""
        for slot in {BY_FIELD[field].slot for field in record.hidden}:
            visible = [row for row in MODALITIES if row.slot == slot and row.field not in record.hidden]
            if not any(row.field in self.fields and self.readers[row.field].is_enabled for row in visible):
                nouns = " or ".join(row.noun for row in visible)
                message = f"this model has no encoder that reads {nouns}, and the view hides the rest of the {slot}"
                raise BadSample("no_slot", f"{message}; choose another view (data.views).")

    def _count(self, record: Record, header: media.Header, fillers: Collection[str]) -> dict[str, int]:
        """Return the amounts from which tokens are planned, by field."""
        amounts = {}
        for modality in MODALITIES:
            if modality.planned_from != modality.field:
                continue
            reader = self.readers[modality.field]
            amount = 0
            if modality.slot in fillers:
                amount = reader.filler_amount
            elif modality.slot in record.slots:
                amount = reader.count(record, header)
            amounts[modality.field] = amount
        return amounts

    def _encode(self, record: Record, counts: Mapping[str, int]) -> tuple[list[int], list[int]]:
        texts = read_texts(record.meta)
        if self.prompts:
            ids = self.chat.prompt(record.messages, counts, record.meta.get("prime", ""), **texts)
            return ids, [IGNORE_INDEX] * len(ids)
        for number, (role, text) in enumerate(record.messages):
            if role == "assistant" and not text.strip():
                raise BadSample(
                    "empty_answer", f"the answer of turn {number} is empty; write it, or remove the record."
                )
        return self.chat.encode(record.messages, counts, num_context=record.num_context, **texts)

    def _is_cut(self, record: Record, counts: Mapping[str, int], length: int, targets: int) -> bool:
        """Return true if ``max_length`` has cut supervised tokens off."""
        if self.prompts or length < self.chat.max_length:
            return False
        unlimited = replace(self.chat, max_length=Chat.max_length)
        _, labels = unlimited.encode(record.messages, counts, num_context=record.num_context, **read_texts(record.meta))
        return count_targets(labels) > targets

    # ------------------------------------------------------------------------------------------------------- decoding

    def sample(self, planned: Planned, fields: Collection[str] | None = None) -> Sample:
        """Decode one sample.

        Args:
            planned: the sample.
            fields: decode only what these need, ``None`` for all that encoders read.

        Raises:
            BadSample: a file does not hold what its header promises.
        """
        first, *more = [self._decode(clip, planned, fields) for clip in planned.record.clips]
        return replace(first, more=tuple(more))

    def _decode(self, record: Record, planned: Planned, fields: Collection[str] | None) -> Sample:
        needed = self.fields - set(record.hidden)
        if fields is not None:
            needed &= set(fields)
        decoded = set[str]().union(*(self.readers[field].decodes for field in needed))
        amounts = {field: planned.amounts[field] for field in decoded}
        num_samples = self.readers["waveform"].count_in_file(amounts.get("waveform", 0), record, planned.header)
        num_frames = self.readers["frames"].count_in_file(amounts.get("frames", 0), record, planned.header)
        sampling = self.readers["frames"].options.sampling
        clip = media.read_clip(record, planned.header, num_frames, num_samples, self.timeout, sampling)
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
        ids, labels = self._encode(planned.record, planned.counts)
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
        fields = {field for name, (field, _) in self.transforms.items() if name not in features}
        try:
            sample = self.sample(planned, fields)
            packable = self.to_packable(planned, sample, features)
        except BadSample as bad:
            raise _with_source(bad, planned.record) from bad
        except Exception as error:
            raise explain_unexpected(error, _place(planned.record), self.policy) from error
        return replace(packable, meta={**packable.meta, "times": packable.meta["times"] or times})

    # ---------------------------------------------------------------------------------------------------- bad samples

    def _skip(self, entry: Entry, bad: BadSample, quarantine_file: Path | None) -> dict[str, Any]:
        """Apply the policy to a bad sample: raise it, or return its description."""
        if self.policy == "raise" and self.prompts:
            raise bad
        if self.policy == "raise":
            cure = "data.on_bad_sample=skip skips and counts such samples"
            raise BadSample(bad.reason, f"{bad} ({cure}.)")
        name, file = identify(entry)
        description = {"id": name, "reason": bad.reason, "file": file, "message": str(bad)}
        if self.policy == "quarantine" and bad.reason in FILE_REASONS:
            assert quarantine_file is not None
            quarantine(quarantine_file, description)
        return description

    def _log_notes(self) -> None:
        """Log how many files have several streams of a kind, and which one of the first is read."""
        notes: dict[str, None] = {}
        for planned in self.planned:
            notes.update(dict.fromkeys(planned.header.notes))
        if notes:
            log.warning("several streams of a kind in %d places: %s", len(notes), next(iter(notes)))


def count_targets(labels: Sequence[int]) -> int:
    """Return the number of supervised tokens; the first token follows no other one.

    >>> count_targets([5, IGNORE_INDEX, 6, 7])
    2
    """
    return sum(label != IGNORE_INDEX for label in labels[1:])


def _place(record: Record) -> str:
    return f"{record.location} ({record.id}): {record.file}"


def _with_source(bad: BadSample, record: Record) -> BadSample:
    return BadSample(bad.reason, f"{record.location} ({record.id}): {bad}")
