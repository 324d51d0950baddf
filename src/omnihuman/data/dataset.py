"""Records -> samples that can be planned before anything is decoded, and packed when their turn comes."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample, Record
from omnihuman.types import IGNORE_INDEX, Batch, Sample

Policy = Literal["raise", "skip", "quarantine"]
Transforms = Mapping[str, tuple[str, Callable[[Any], Tensor]]]
Layouts = Callable[[Mapping[str, int]], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Planned:
    """A sample whose size is known.

    Attributes:
        record: what it is.
        amounts: frames and sound samples that it will have, by what an encoder reads.
        counts: tokens of each slot.
        length: tokens of its text, slots expanded.
        targets: supervised tokens among them.
    """

    record: Record
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
        missing: what a record gets whose text names a modality that its file lacks: ``absent`` takes the slot out of the
            text, ``fill`` puts the official filler in (10 s of silence, one black frame).
        policy: what is done about a sample that cannot be used.
        quarantine_file: ids of samples that are left out from the start, and where ``quarantine`` writes.
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
        missing: Literal["absent", "fill"] = "absent",
        policy: Policy = "raise",
        quarantine_file: Path | None = None,
        timeout: float = 60.0,
        prompts: bool = False,
    ) -> None:
        self.transforms, self.layouts, self.chat = dict(transforms), layouts, chat
        self.num_frames, self.missing, self.policy = num_frames, missing, policy
        self.quarantine_file, self.timeout, self.prompts = quarantine_file, timeout, prompts
        self.skipped: list[dict[str, Any]] = []
        self.dropped_slots = 0
        self.planned = list(self._plan_all(list(records)))

    def __len__(self) -> int:
        return len(self.planned)

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
                samples.append(self._packable(planned))
            except BadSample as bad:
                skipped.append(self._refuse(planned.record, bad))
        return pack(samples, self.blanks, row.step_targets, skipped)

    @cached_property
    def blanks(self) -> dict[str, Tensor]:
        """One moment of zeros for each signal."""
        black, silence = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(media.SAMPLE_RATE // 10)
        empty = {"frames": black, "waveform": silence, "instruction": ""}
        return {name: torch.zeros_like(make(empty[reads])[:1]) for name, (reads, make) in self.transforms.items()}

    def joined(self, others: Iterable["Samples"]) -> "Samples":
        """These samples, then those of others made with the same options."""
        for other in others:
            self.planned += other.planned
            self.skipped += other.skipped
            self.dropped_slots += other.dropped_slots
        return self

    def _plan_all(self, records: list[Record | tuple[str, BadSample]]) -> Iterable[Planned]:
        good = [record for record in records if isinstance(record, Record)]
        quarantined = self._quarantined()
        with ThreadPoolExecutor(8) as pool:
            files = list(dict.fromkeys(record.file for record in good if record.id not in quarantined))
            headers = dict(zip(files, pool.map(self._probed, files), strict=True))
        for record in records:
            try:
                if not isinstance(record, Record):
                    raise record[1]
                if record.id in quarantined:
                    self.skipped.append(
                        {"id": record.id, "reason": "quarantined", "message": str(self.quarantine_file)}
                    )
                    continue
                header = headers[record.file]
                if isinstance(header, BadSample):
                    raise _named(header, record)
                yield self._plan(record, header)
            except BadSample as bad:
                self.skipped.append(self._refuse(record, bad))

    def _probed(self, file: Path) -> media.Header | BadSample:
        try:
            return media.probe(file, self.timeout)
        except BadSample as bad:
            return bad

    def _plan(self, record: Record, header: media.Header) -> Planned:
        record, amounts = self._amounts(record, header)
        counts = self.layouts(amounts)
        if empty := [slot for slot in record.slots if not counts.get(slot)]:
            raise BadSample("no_slot", f"{record.source}: this model has no encoder for {empty}; choose data.views.")
        try:
            ids, labels = self._encode(record, counts)
        except BadSample as bad:
            raise _named(bad, record) from bad
        return Planned(record, amounts, counts, len(ids), sum(label != IGNORE_INDEX for label in labels[1:]))

    def _amounts(self, record: Record, header: media.Header) -> tuple[Record, dict[str, int]]:
        """Frames and sound samples; a slot that the file cannot fill is dropped or filled."""
        has = {"video": header.has_video, "audio": header.has_audio}
        lacking = [slot for slot in record.slots if not has[slot]]
        if lacking and self.missing == "absent":
            if len(lacking) == len(record.slots) or set(lacking) & set(record.needs):
                raise BadSample("no_media", f"{record.source}: {record.file} has no {' and no '.join(lacking)}.")
            record = record.without(lacking)
            self.dropped_slots += 1
        still = header.is_still or record.kind == "image"
        frames = (1 if still or not header.has_video else self.num_frames) if "video" in record.slots else 0
        samples = header.num_samples(record.start, record.end) if "audio" in record.slots else 0
        if "audio" in lacking and self.missing == "fill":
            samples = 10 * media.SAMPLE_RATE
        if "audio" in record.slots and not samples:
            raise BadSample("empty_audio", f"{record.source}: {record.file} has no sound in the clip (0 s).")
        return record, {"frames": frames, "waveform": samples}

    def _encode(self, record: Record, counts: Mapping[str, int]) -> tuple[list[int], list[int]]:
        if self.prompts:
            ids = self.chat.prompt(record.messages, counts)
            return ids, [IGNORE_INDEX] * len(ids)
        return self.chat.encode(record.messages, counts)

    def sample(self, planned: Planned) -> Sample:
        """Decode one sample.

        Raises:
            BadSample: the file does not hold what its header said.
        """
        record, amounts = planned.record, planned.amounts
        header = media.probe(record.file, self.timeout)
        frames, times, waveform = media.read(
            record.file,
            num_frames=amounts["frames"] if header.has_video else 0,
            num_samples=amounts["waveform"] if header.has_audio else 0,
            start=record.start,
            end=record.end,
            timeout=self.timeout,
        )
        if amounts["frames"] and frames is None:
            frames = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        if amounts["waveform"] and waveform is None:
            waveform = torch.zeros(amounts["waveform"])
        answer = next((text for role, text in record.messages if role == "assistant"), "")
        meta = {"id": record.id, "task": record.task, "answer": answer.strip(), "times": times, **record.meta}
        return Sample(frames, waveform, record.messages, meta)

    def _packable(self, planned: Planned) -> Packable:
        try:
            sample = self.sample(planned)
        except BadSample as bad:
            raise _named(bad, planned.record) from bad
        ids, labels = self._encode(planned.record, planned.counts)
        signals = {
            name: make(value)
            for name, (reads, make) in self.transforms.items()
            if (value := getattr(sample, reads)) is not None
        }
        return Packable(signals, ids, labels, sample.meta)

    def _refuse(self, record: Record | tuple[str, BadSample], bad: BadSample) -> dict[str, Any]:
        """What the policy says about a bad sample: raise it, or describe it."""
        if self.policy == "raise":
            raise bad
        name = record.id if isinstance(record, Record) else record[0]
        file = str(record.file) if isinstance(record, Record) else ""
        skip = {"id": name, "reason": bad.reason, "file": file, "message": str(bad)}
        if self.policy == "quarantine":
            assert self.quarantine_file is not None
            self.quarantine_file.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine_file.open("a") as lines:
                lines.write(json.dumps(skip) + "\n")
        return skip

    def _quarantined(self) -> set[str]:
        if self.quarantine_file is None or not self.quarantine_file.is_file():
            return set()
        return {json.loads(line)["id"] for line in self.quarantine_file.read_text().splitlines()}


def views_of(record: Record, views: Sequence[str]) -> list[Record]:
    """The distinct forms in which a record is used: one for every view that leaves something of it."""
    seen: dict[tuple[str, ...], Record] = {}
    for view in views:
        form = record.seen_as(view)
        if form is not None and form.slots not in seen:
            seen[form.slots] = replace(form, id=record.id if form.slots == record.slots else f"{record.id}#{view}")
    return list(seen.values())


def _named(bad: BadSample, record: Record) -> BadSample:
    return BadSample(bad.reason, f"{record.source} ({record.id}): {bad}")
