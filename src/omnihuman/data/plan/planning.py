"""Records -> samples whose sizes are known, before anything is decoded."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample, explain_unexpected
from omnihuman.data.chat import Chat, read_texts
from omnihuman.data.exclusion import FILE_REASONS, Description, Identity, identify, quarantine
from omnihuman.data.machine import retry
from omnihuman.data.plan.planned import Planned, PlanReport
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import Entry, Record
from omnihuman.data.views import ViewSelection
from omnihuman.modality import BY_FIELD, MODALITIES, SLOTS
from omnihuman.types import IGNORE_INDEX

Policy = Literal["raise", "skip", "quarantine"]

Layouts = Callable[[Mapping[str, int]], Mapping[str, int]]
"""Amounts by field -> tokens by slot."""

Headers = Mapping[Path, media.Header | BadSample]
"""Header of every file, or what is wrong with it."""

CHUNK = 4096
"""Records that are planned at a time."""

HEADER_FIELDS = (
    "file",
    "more_images",
    "audio_track",
    "second_clip",
    "kind",
    "slots",
    "video_stream",
    "audio_stream",
    "fps",
)
"""Fields of a record that decide its header."""

MAX_LAYOUTS = 2**16
"""Amounts whose tokens are remembered."""


class Planner:
    """Plans records in each view.

    Args:
        readers: of the media, by field.
        fields: that encoders read.
        layouts: amounts by field -> tokens by slot.
        chat: builds prompts.
        selection: lists the views of a record.
        policy: what happens to a record that cannot be used.
        excluded: samples that are skipped from the start.
        quarantine_file: list to which ``quarantine`` adds bad files.
        timeout: seconds per file.
        prompts: samples end where the answer to their question begins.

    Attributes:
        probe_all: reads the headers of files.
        report: what has been met so far.
    """

    def __init__(
        self,
        readers: Mapping[str, Reader],
        fields: Collection[str],
        layouts: Layouts,
        chat: Chat,
        selection: ViewSelection,
        *,
        policy: Policy,
        excluded: Mapping[Identity, Description],
        quarantine_file: Path | None,
        timeout: float,
        prompts: bool,
    ) -> None:
        self.readers, self.fields, self.layouts, self.chat = readers, fields, layouts, chat
        self.selection, self.policy, self.excluded, self.quarantine_file = selection, policy, excluded, quarantine_file
        self.timeout, self.prompts = timeout, prompts
        self.probe_all: Callable[[Iterable[Path]], Headers] = self.probe_files
        self.report = PlanReport()
        self._counts: dict[Any, Mapping[str, int]] = {}
        self._merged: tuple[Any, media.Header] | None = None

    def __call__(self, entries: Iterable[Entry]) -> Iterator[Planned]:
        """Yield the samples of records; ``report`` has those that are skipped.

        Raises:
            BadSample: a record cannot be used and the policy is ``raise``.
        """
        remaining = iter(entries)
        while chunk := list(islice(remaining, CHUNK)):
            usable = [entry for entry in chunk if isinstance(entry, Record) and not self._is_excluded(entry)]
            files: dict[Path, None] = {}
            for record in usable:
                files.update(dict.fromkeys(record.files))
            headers = self.probe_all(files)
            for entry in chunk:
                yield from self._plan_entry(entry, headers)
            self._merged = None
        self.report.num_dropped = self.selection.num_dropped

    def _plan_entry(self, entry: Entry, headers: Headers) -> Iterator[Planned]:
        if self._is_excluded(entry):
            self.report.skipped.append(dict(self.excluded[identify(entry)]))
            return
        try:
            header, views = self._list_views(entry, headers)
        except BadSample as bad:
            self._skip(entry, bad)
            return
        for record, fillers in views:
            yield from self._plan_view(record, header, fillers)

    def _is_excluded(self, entry: Entry) -> bool:
        """Return true if a record is excluded in all of its views."""
        description = self.excluded.get(identify(entry)) if self.excluded else None
        return description is not None and not description.get("is_view")

    def probe_files(self, files: Iterable[Path]) -> dict[Path, media.Header | BadSample]:
        """Return the header of each file, or what is wrong with it."""
        files = list(files)
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(files, pool.map(self._probe, files), strict=True))

    def _probe(self, file: Path) -> media.Header | BadSample:
        try:
            return retry(lambda: media.probe(file, self.timeout), _is_passing)
        except BadSample as bad:
            return bad
        except Exception as error:
            unusable = explain_unexpected(error, str(file), self.policy)
            if isinstance(unusable, BadSample):
                return unusable
            raise unusable from error

    def _list_views(self, entry: Entry, headers: Headers) -> tuple[media.Header, list[tuple[Record, list[str]]]]:
        """Return the header of a record, and the record in each view with its fillers.

        Raises:
            BadSample: the record cannot be used in any view.
        """
        if not isinstance(entry, Record):
            raise entry[1]
        key = tuple(getattr(entry, name) for name in HEADER_FIELDS)
        if self._merged is None or self._merged[0] != key:  # otherwise it is another instruction on the same clip
            try:
                self._merged = key, media.merge_headers(entry, headers)
            except BadSample as bad:
                raise add_source(bad, entry) from bad
        header = self._merged[1]
        return header, list(self.selection.select(entry, header))

    def _plan_view(self, record: Record, header: media.Header, fillers: Collection[str]) -> Iterator[Planned]:
        """Yield the sample of a record in one view, unless it is excluded or bad."""
        if self.excluded and (description := self.excluded.get(identify(record))):
            self.report.skipped.append(dict(description))
            return
        try:
            planned = self._plan(record, header, fillers)
        except BadSample as bad:
            self._skip(record, bad, is_view=True)
        else:
            self._note(planned)
            yield planned

    def _plan(self, record: Record, header: media.Header, fillers: Collection[str]) -> Planned:
        try:
            self._check_hidden(record)
            for field in self.fields:
                record = self.readers[field].prepare(record, header)
            amounts = self._count(record, header, fillers)
            counts = self._lay_out(amounts, record)
            if empty := [slot for slot in record.slots if not counts.get(slot)]:
                raise BadSample("no_slot", f"this model has no encoder for {empty}; choose other data.views.")
            length, targets = self._measure(record, counts)
        except BadSample as bad:
            raise add_source(bad, record) from bad
        except Exception as error:
            raise explain_unexpected(error, describe_place(record), self.policy) from error
        return Planned(record, header, amounts, counts, length, targets, self.quarantine_file)

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

    def _lay_out(self, amounts: Mapping[str, int], record: Record) -> Mapping[str, int]:
        """Return the tokens of each slot; equal amounts have equal tokens."""
        key = (record.tiling, *amounts.values())
        if key not in self._counts:
            if len(self._counts) >= MAX_LAYOUTS:
                self._counts.clear()
            self._counts[key] = self.layouts(amounts)
        return self._counts[key]

    def _measure(self, record: Record, counts: Mapping[str, int]) -> tuple[int, int]:
        """Return the length of a sample, and its supervised tokens.

        They are counted in a text whose slots have one token each, unless ``max_length`` may cut it: thousands of
        placeholders would not change the rest.
        """
        limit = self.chat.max_length
        try:
            ids, labels = encode_record(self.chat, record, dict.fromkeys(counts, 1), prompts=self.prompts)
            length = len(ids)
            for slot in record.slots:
                length += ids.count(SLOTS[slot]) * (counts[slot] - 1)
        except BadSample:
            length = limit
        if length < limit:
            return length, count_targets(labels)
        ids, labels = encode_record(self.chat, record, counts, prompts=self.prompts)
        targets = count_targets(labels)
        if not self.prompts and len(ids) >= limit:
            unlimited = replace(self.chat, max_length=Chat.max_length)
            if count_targets(encode_record(unlimited, record, counts)[1]) > targets:
                self.report.cut_answers.append(f"{record.location} ({record.id})")
        return len(ids), targets

    def _note(self, planned: Planned) -> None:
        self.report.stream_notes.update(dict.fromkeys(planned.header.notes))
        if planned.amounts["frames"]:
            self.report.num_with_frames += 1
            if "faces" in self.fields and "faces" not in planned.record.hidden:
                face = self.readers["faces"].options.face
                self.report.num_unlocated += not face.can_locate(planned.record.faces)

    def _skip(self, entry: Entry, bad: BadSample, *, is_view: bool = False) -> None:
        description = describe_skipped(self.policy, entry, bad, self.quarantine_file, is_question=self.prompts)
        self.report.skipped.append(description | {"is_view": True} if is_view else description)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, BadSample) and error.reason == "unavailable"


def encode_record(
    chat: Chat, record: Record, counts: Mapping[str, int], *, prompts: bool = False
) -> tuple[list[int], list[int]]:
    """Return the ids and the labels of a record.

    Args:
        chat: builds prompts.
        record: in one view.
        counts: tokens by slot.
        prompts: end where the answer begins.

    Raises:
        BadSample: an answer is empty, or the sample exceeds ``max_length``.
    """
    texts = read_texts(record.meta)
    if prompts:
        ids = chat.prompt(record.messages, counts, record.meta.get("prime", ""), **texts)
        return ids, [IGNORE_INDEX] * len(ids)
    for number, (role, text) in enumerate(record.messages):
        if role == "assistant" and not text.strip():
            raise BadSample("empty_answer", f"the answer of turn {number} is empty; write it, or remove the record.")
    return chat.encode(record.messages, counts, num_context=record.num_context, **texts)


def count_targets(labels: list[int]) -> int:
    """Return the number of supervised tokens; the first token follows no other one.

    >>> count_targets([5, IGNORE_INDEX, 6, 7])
    2
    """
    following = labels[1:]
    return len(following) - following.count(IGNORE_INDEX)


def describe_skipped(
    policy: Policy, entry: Entry, bad: BadSample, quarantine_file: Path | None, *, is_question: bool = False
) -> dict[str, Any]:
    """Apply the policy to a bad sample: raise it, or return its description.

    Args:
        policy: of the run.
        entry: the sample.
        bad: its error.
        quarantine_file: list to which ``quarantine`` adds the sample if the error lies in its file.
        is_question: it is the only question of a user, so that skipping it is no cure.
    """
    if policy == "raise" and is_question:
        raise bad
    if policy == "raise":
        cure = "data.on_bad_sample=skip skips and counts such samples"
        raise BadSample(bad.reason, f"{bad} ({cure}.)")
    name, file = identify(entry)
    description = {"id": name, "reason": bad.reason, "file": file, "message": str(bad)}
    if policy == "quarantine" and bad.reason in FILE_REASONS:
        assert quarantine_file is not None
        quarantine(quarantine_file, description)
    return description


def describe_place(record: Record) -> str:
    """Return the place, the id and the file of a record, for messages."""
    return f"{record.location} ({record.id}): {record.file}"


def add_source(bad: BadSample, record: Record) -> BadSample:
    """Return an error with the place and the id of its record."""
    return BadSample(bad.reason, f"{record.location} ({record.id}): {bad}")
