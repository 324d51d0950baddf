"""Records -> samples that can be planned before anything is decoded, and packed when their turn comes."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from omnihuman.data import media
from omnihuman.data.chat import Chat
from omnihuman.data.collate import Packable, pack
from omnihuman.data.face import FaceInput, signal_of, timed
from omnihuman.data.features import Kept
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample, Record
from omnihuman.types import IGNORE_INDEX, Batch, Features, Sample

Policy = Literal["raise", "skip", "quarantine"]
Transforms = Mapping[str, tuple[str, Callable[[Any], Tensor]]]
Layouts = Callable[[Mapping[str, int]], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Planned:
    """A sample whose size is known.

    Attributes:
        record: what it is.
        header: of its file.
        amounts: frames and sound samples that it will have, by what an encoder reads.
        counts: tokens of each slot.
        length: tokens of its text, slots expanded.
        targets: supervised tokens among them.
    """

    record: Record
    header: media.Header
    amounts: Mapping[str, int]
    counts: Mapping[str, int]
    length: int
    targets: int


class Samples(Dataset[Batch]):
    """A map from ``Row`` to ``Batch``: what a loader's worker does.

    Args:
        records: to be used, in order.
        transforms: by encoder name, the field of a sample that it reads and what makes a signal of it.
        layouts: amounts -> tokens of each slot.
        chat: the prompt builder.
        num_frames: frames of a video; a still has one.
        face: how faces are cut out, for encoders that read them.
        views: ways of looking at a record; it is used once for each that leaves something of it. Without any: as it is.
        needs: slots that every file must be able to fill, beside those that its record needs.
        missing: what a record gets whose text names a modality that its file lacks: ``absent`` takes the slot out of
            the text, ``fill`` puts the official filler in (10 s of silence, one black frame).
        policy: what is done about a sample that cannot be used.
        quarantine_file: what ``quarantine`` leaves out from the start, one JSON object a line, and where it adds to it.
        timeout: seconds for reading one file.
        prompts: end every sample where its first answer would begin, for generation.

    Raises:
        BadSample: a sample cannot be used and the policy is ``raise``.
    """

    def __init__(
        self,
        records: Iterable[Record | tuple[str, BadSample]],
        transforms: Transforms,
        layouts: Layouts,
        chat: Chat,
        *,
        num_frames: int,
        face: FaceInput | None = None,
        views: Sequence[str] = (),
        needs: Sequence[str] = (),
        missing: Literal["absent", "fill"] = "absent",
        policy: Policy = "raise",
        quarantine_file: Path | None = None,
        timeout: float = 60.0,
        prompts: bool = False,
    ) -> None:
        self.transforms, self.layouts, self.chat = dict(transforms), layouts, chat
        self.num_frames, self.missing, self.policy = num_frames, missing, policy
        reads = {field for field, _ in self.transforms.values()}
        self.face = (face or FaceInput()) if "faces" in reads else None
        self.views, self.needs = tuple(views), tuple(needs)
        self.quarantine_file, self.timeout, self.prompts = quarantine_file, timeout, prompts
        self.skipped: list[dict[str, Any]] = []
        self.dropped_slots = 0
        self.kept: Kept | None = None
        self.planned = list(self._plan_all(list(records)))

    def __len__(self) -> int:
        return len(self.planned)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"layouts": None}  # belongs to the model; workers do not plan

    @property
    def lengths(self) -> list[int]:
        return [planned.length for planned in self.planned]

    @property
    def targets(self) -> list[int]:
        return [planned.targets for planned in self.planned]

    def __getitem__(self, row: Row) -> Batch:
        """Decode and pack the samples of a row; a bad one is left out and reported, never replaced."""
        samples, skipped = [], []
        for index in row.samples:
            planned = self.planned[index]
            try:
                samples.append(self._packable(planned, index))
            except BadSample as bad:
                skipped.append(self._refuse(planned.record, bad))
        return pack(samples, self.blanks, row.step_targets, skipped, self.kept.blanks if self.kept else None)

    @property
    def without_boxes(self) -> int:
        """Samples that are seen, whose faces an encoder reads, and nothing says where they are."""
        seen = [p.record.faces for p in self.planned if p.amounts["frames"] and "faces" not in p.record.hides]
        return sum(not self.face.finds(faces) for faces in seen) if self.face else 0

    @cached_property
    def blanks(self) -> dict[str, Tensor]:
        """One moment of zeros for each signal."""
        black, silence = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(media.SAMPLE_RATE // 10)
        empty = {"frames": black, "faces": black, "waveform": silence, "instruction": ""}
        return {name: torch.zeros_like(make(empty[reads])[:1]) for name, (reads, make) in self.transforms.items()}

    def joined(self, others: Iterable["Samples"]) -> "Samples":
        """These samples, then those of others made with the same options."""
        for other in others:
            self.planned += other.planned
            self.skipped += other.skipped
            self.dropped_slots += other.dropped_slots
        return self

    def _plan_all(self, records: list[Record | tuple[str, BadSample]]) -> Iterable[Planned]:
        known = self._quarantined()
        good = [record for record in records if isinstance(record, Record) and _key(record) not in known]
        files = list(dict.fromkeys(file for record in good for file in record.files))
        with ThreadPoolExecutor(8) as pool:
            headers = dict(zip(files, pool.map(self._probed, files), strict=True))
        for record in records:
            try:
                if _key(record) in known:
                    self.skipped.append(self._in_quarantine(record))
                elif not isinstance(record, Record):
                    raise record[1]
                else:
                    header = self._header(record, headers)
                    for form, lacking in self._forms(record, header):
                        if _key(form) in known:
                            self.skipped.append(self._in_quarantine(form))
                        else:
                            yield self._plan(form, header, lacking)
            except BadSample as bad:
                self.skipped.append(self._refuse(record, bad))

    def _probed(self, file: Path) -> media.Header | BadSample:
        try:
            return media.probe(file, self.timeout)
        except BadSample as bad:
            return bad

    def _header(self, record: Record, headers: Mapping[Path, media.Header | BadSample]) -> media.Header:
        try:
            return media.header_of(record, headers)
        except BadSample as bad:
            raise _named(bad, record) from bad

    def _forms(self, record: Record, header: media.Header) -> Iterable[tuple[Record, list[str]]]:
        """The forms in which a record is used, each with the slots that the file cannot fill and that get a filler."""
        has = {"video": header.has_video, "audio": header.has_audio}
        lacking = [slot for slot in record.slots if not has[slot]]
        needed = set(lacking) & {*record.needs, *self.needs}
        if needed or (lacking and len(lacking) == len(record.slots)):
            what = f"{record.file} has no {' and no '.join(lacking)}, which the text names"
            raise BadSample("no_media", f"{record.source} ({record.id}): {what}; take the slot out of the record.")
        if lacking and self.missing == "absent":
            record = record.without(lacking)
            self.dropped_slots += 1
        forms = views_of(record, self.views) if self.views else [record]
        if lacking and not forms:
            raise BadSample(
                "no_media", f"{record.source} ({record.id}): {record.file} has no {' and no '.join(lacking)}."
            )
        return [(form, [slot for slot in lacking if slot in form.slots]) for form in forms]

    def _plan(self, record: Record, header: media.Header, lacking: Sequence[str]) -> Planned:
        if "frames" in record.hides and (self.face is None or self.face.source == "none"):
            what = "this model has no encoder that reads faces, and nothing else may be seen"
            raise BadSample("no_slot", f"{record.source} ({record.id}): {what}; choose another view (data.views).")
        if self.face and record.faces is not None:
            seen = timed(record.faces, header.frames, header.rate, f"{record.source} ({record.id})")
            record = replace(record, faces=seen)
        amounts = self._amounts(record, header, lacking)
        counts = self.layouts(amounts)
        if empty := [slot for slot in record.slots if not counts.get(slot)]:
            raise BadSample("no_slot", f"{record.source}: this model has no encoder for {empty}; choose data.views.")
        try:
            ids, labels = self._encode(record, counts)
        except BadSample as bad:
            raise _named(bad, record) from bad
        targets = sum(label != IGNORE_INDEX for label in labels[1:])
        return Planned(record, header, amounts, counts, len(ids), targets)

    def _amounts(self, record: Record, header: media.Header, lacking: Sequence[str]) -> dict[str, int]:
        """Frames and sound samples of a sample."""
        single = header.is_still or record.kind == "image" or "video" in lacking
        wanted = self.num_frames if record.then is None else max(2, self.num_frames)
        frames = (1 if single else wanted) if "video" in record.slots else 0
        samples = header.num_samples(*record.heard) if "audio" in record.slots else 0
        if "audio" in lacking:
            samples = 10 * media.SAMPLE_RATE
        if "audio" in record.slots and not samples:
            what = f"{record.file} has no sound in the clip; correct start and end, or take <audio> out of the record."
            raise BadSample("empty_audio", f"{record.source} ({record.id}): {what}")
        return {"frames": frames, "waveform": samples}

    def _encode(self, record: Record, counts: Mapping[str, int]) -> tuple[list[int], list[int]]:
        system = said if isinstance(said := record.meta.get("system"), str) else None
        if self.prompts:
            ids = self.chat.prompt(record.messages, counts, str(record.meta.get("prime", "")), system)
            return ids, [IGNORE_INDEX] * len(ids)
        return self.chat.encode(record.messages, counts, system)

    def sample(self, planned: Planned, fields: Collection[str] = ("frames", "faces", "waveform")) -> Sample:
        """Decode one sample, or of its media only what these fields need.

        Raises:
            BadSample: the file does not hold what its header said.
        """
        record, header = planned.record, planned.header
        fields = {*fields} - {*record.hides}
        amounts = {
            "frames": planned.amounts["frames"] if {"frames", "faces"} & fields else 0,
            "waveform": planned.amounts["waveform"] if "waveform" in fields else 0,
        }
        frames, times, waveform, first = media.read_record(
            record,
            header,
            amounts["frames"] if header.has_video else 0,
            amounts["waveform"] if header.has_audio else 0,
            self.timeout,
        )
        if amounts["frames"] and frames is None:  # only under missing=fill
            frames, times, first = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [0.0], 1
        if amounts["waveform"] and waveform is None:
            waveform = torch.zeros(amounts["waveform"])
        face = self.face if "faces" in fields else None
        faces: tuple[Tensor | None, ...] = ()
        if face and frames is not None:
            faces = face(frames[:first], times[:first], record.faces, record.source)
            if record.then is not None:  # the record's boxes are those of its first file
                faces += face(frames[first:], times[first:], None, record.source)
        answer = next((text for role, text in record.messages if role == "assistant"), "")
        meta = {"id": record.id, "task": record.task, "answer": answer.strip(), "times": times, **record.meta}
        return Sample(None if "frames" in record.hides else frames, faces, waveform, record.messages, meta)

    def _packable(self, planned: Planned, index: int) -> Packable:
        features, times = self.kept.load(index) if self.kept else ({}, [])
        wanted = {reads for name, (reads, _) in self.transforms.items() if name not in features}
        try:
            sample = self.sample(planned, wanted)
        except BadSample as bad:
            raise _named(bad, planned.record) from bad
        made = self.packable(planned, sample, features)
        return replace(made, meta={**made.meta, "times": made.meta["times"] or times})

    def packable(self, planned: Planned, sample: Sample, features: Mapping[str, Features] | None = None) -> Packable:
        """A decoded sample as signals and ids; encoders whose features are there get no signal."""
        ids, labels = self._encode(planned.record, planned.counts)
        transforms = {name: made for name, made in self.transforms.items() if name not in (features or {})}
        signals, real = dict[str, Tensor](), dict[str, Tensor]()
        for name, (reads, make) in transforms.items():
            if reads in planned.record.hides:
                if amount := planned.amounts["frames"]:
                    blank = self.blanks[name]
                    signals[name] = blank.expand(amount, *blank.shape[1:])
                    real[name] = torch.zeros(amount, dtype=torch.bool)
            elif reads == "faces":
                if sample.faces:
                    signals[name], real[name] = signal_of(sample.faces, make, self.blanks[name])
            elif (value := getattr(sample, reads)) is not None:
                signals[name] = make(value)
        return Packable(signals, ids, labels, sample.meta, real, features or {})

    def _refuse(self, record: Record | tuple[str, BadSample], bad: BadSample) -> dict[str, Any]:
        """What the policy says about a bad sample: raise it, or describe it."""
        if self.policy == "raise" and self.prompts:
            raise bad
        if self.policy == "raise":
            cure = "data.on_bad_sample=skip leaves such samples out and counts them"
            raise BadSample(bad.reason, f"{bad} ({cure}.)")
        name, file = _key(record)
        skip = {"id": name, "reason": bad.reason, "file": file, "message": str(bad)}
        if self.policy == "quarantine":
            assert self.quarantine_file is not None
            self.quarantine_file.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine_file.open("a") as lines:  # a whole line at once: several processes write
                lines.write(json.dumps(skip) + "\n")
        return skip

    def _quarantined(self) -> set[tuple[str, str]]:
        """Id and file of what is not to be opened again."""
        if self.policy != "quarantine" or self.quarantine_file is None or not self.quarantine_file.is_file():
            return set()
        known = set()
        for number, line in enumerate(self.quarantine_file.read_text().splitlines(), 1):
            try:
                entry = json.loads(line)
                known.add((entry["id"], entry["file"]))
            except (ValueError, KeyError, TypeError) as error:
                where = f"{self.quarantine_file}:{number}"
                raise ValueError(f"{where}: not an object with id and file ({error!r}); remove the line.") from error
        return known

    def _in_quarantine(self, record: Record | tuple[str, BadSample]) -> dict[str, Any]:
        name, file = _key(record)
        message = f"{name} stands in {self.quarantine_file}"
        return {"id": name, "reason": "quarantined", "file": file, "message": message}


def _key(record: Record | tuple[str, BadSample]) -> tuple[str, str]:
    """Id and file of a record, of a bad one its place."""
    return (record.id, str(record.file)) if isinstance(record, Record) else (record[0], "")


def views_of(record: Record, views: Sequence[str]) -> list[Record]:
    """The distinct forms in which a record is used: one for every view that leaves something of it."""
    seen: dict[tuple[object, ...], Record] = {}
    for view in views:
        form = record.seen_as(view)
        if form is not None and (key := (form.slots, form.hides)) not in seen:
            seen[key] = form if form == record else replace(form, id=f"{record.id}#{view}")
    return list(seen.values())


def _named(bad: BadSample, record: Record) -> BadSample:
    return BadSample(bad.reason, f"{record.source} ({record.id}): {bad}")
