"""Records -> samples whose sizes are known, before anything is decoded."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample, explain_unexpected
from omnihuman.data.chat import Chat, Piece, measure, read_texts
from omnihuman.data.exclusion import FILE_REASONS, Description, Identity, identify, quarantine
from omnihuman.data.machine import retry
from omnihuman.data.plan.clip_headers import ClipHeaders, Headers, add_source
from omnihuman.data.plan.planned import Planned, PlanReport
from omnihuman.data.plan.stat import stat_file
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import Entry, Record
from omnihuman.data.token_counts import TokenCounter
from omnihuman.data.views import ViewSelection
from omnihuman.modality import BY_FIELD, MODALITIES
from omnihuman.types import IGNORE_INDEX

Policy = Literal["raise", "skip", "quarantine"]

Layouts = Callable[[Mapping[str, int]], Mapping[str, int]]
"""Amounts by field -> tokens by slot."""

CHUNK = 4096
"""Records that are planned at a time."""

PLANNED_MODALITIES = tuple(modality for modality in MODALITIES if modality.planned_from == modality.field)
"""Those whose amounts decide the numbers of tokens."""

MAX_LAYOUTS = 2**16
"""Amounts whose tokens are remembered."""

MAX_TEXTS = 2**16
"""Texts whose numbers of tokens are remembered: many questions repeat."""


@dataclass(slots=True)
class Draft:
    """A record, or a view of it, on its way to a sample: its text is not tokenised yet.

    Attributes:
        entry: the record in one view, or an entry without any.
        error: what is wrong with it.
        excluded: the description of an excluded sample.
        is_view: other views of the record may be used.
        header: of its files.
        amounts: frames, audio samples ... by field.
        counts: tokens by slot.
        pieces: of its prompt.
    """

    entry: Entry
    error: Exception | None = None
    excluded: Description | None = None
    is_view: bool = True
    header: media.Header | None = None
    amounts: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)


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
        self._num_tokens: dict[str, int] = {}
        self._counter = TokenCounter(chat.tokenizer)

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
            headers = ClipHeaders(self.probe_all(files))
            drafts = list[Draft]()
            for entry in chunk:
                drafts += self._draft_entry(entry, headers)
            self._tokenize(drafts)
            for draft in drafts:
                yield from self._finish(draft)
        self.report.num_dropped = self.selection.num_dropped

    def forget(self) -> None:
        """Forget the numbers of tokens that are remembered."""
        self._num_tokens, self._counter = {}, TokenCounter(self.chat.tokenizer)

    def _draft_entry(self, entry: Entry, headers: ClipHeaders) -> Iterator[Draft]:
        if self._is_excluded(entry):
            yield Draft(entry, excluded=self.excluded[identify(entry)])
            return
        try:
            header, views = self._list_views(entry, headers)
        except BadSample as bad:
            yield Draft(entry, bad, is_view=False)
            return
        for record, fillers in views:
            yield self._draft_view(record, header, fillers)

    def _tokenize(self, drafts: Iterable[Draft]) -> None:
        """Count the tokens of all texts of some samples."""
        if len(self._num_tokens) >= MAX_TEXTS:
            self._num_tokens.clear()
        new = list[str]()
        for draft in drafts:
            new += [piece.text for piece in draft.pieces if piece.text not in self._num_tokens]
        self._num_tokens |= self._counter.count(new)

    def _finish(self, draft: Draft) -> Iterator[Planned]:
        """Yield the sample of a draft, unless it is excluded or bad."""
        if draft.excluded is not None:
            self.report.skipped.append(dict(draft.excluded))
            return
        try:
            if draft.error is not None:
                raise draft.error
            planned = self._plan(draft)
        except BadSample as bad:
            self._skip(draft.entry, bad, is_view=draft.is_view)
        else:
            self._note(planned)
            yield planned

    def _is_excluded(self, entry: Entry) -> bool:
        """Return true if a record is excluded in all of its views."""
        description = self.excluded.get(identify(entry)) if self.excluded else None
        return description is not None and not description.get("is_view")

    def probe_files(self, files: Iterable[Path]) -> dict[Path, media.Header | BadSample]:
        """Return the header of each file, or what is wrong with it."""
        files = list(files)
        with ThreadPoolExecutor(8) as pool:
            outcomes = pool.map(partial(probe_file, timeout=self.timeout, policy=self.policy), files)
            return dict(zip(files, outcomes, strict=True))

    def _list_views(self, entry: Entry, headers: ClipHeaders) -> tuple[media.Header, list[tuple[Record, list[str]]]]:
        """Return the header of a record, and the record in each view with its fillers.

        Raises:
            BadSample: the record cannot be used in any view.
        """
        if not isinstance(entry, Record):
            raise entry[1]
        header = headers.merge(entry)
        return header, list(self.selection.select(entry, header))

    def _draft_view(self, record: Record, header: media.Header, fillers: Collection[str]) -> Draft:
        """Return a record in one view, all but the numbers of its tokens."""
        if self.excluded and (description := self.excluded.get(identify(record))):
            return Draft(record, excluded=description)
        prepared = record
        try:
            self._check_hidden(record)
            for name in self.fields:
                prepared = self.readers[name].prepare(prepared, header)
            amounts = self._count(prepared, header, fillers)
            counts = self._lay_out(amounts, prepared)
            if empty := [slot for slot in prepared.slots if not counts.get(slot)]:
                raise BadSample("no_slot", f"this model has no encoder for {empty}; choose other data.views.")
            pieces = split_record(self.chat, prepared, prompts=self.prompts)
        except Exception as error:
            explained = self._explain(error, prepared)
            explained.__cause__ = error
            return Draft(record, explained)
        return Draft(prepared, header=header, amounts=amounts, counts=counts, pieces=pieces)

    def _plan(self, draft: Draft) -> Planned:
        record = draft.entry
        assert isinstance(record, Record)
        assert draft.header is not None
        try:
            length, targets = self._measure(record, draft)
        except Exception as error:
            raise self._explain(error, record) from error
        return Planned(record, draft.header, draft.amounts, draft.counts, length, targets, self.quarantine_file)

    def _explain(self, error: Exception, record: Record) -> Exception:
        """Return the error of a record with its place."""
        if isinstance(error, BadSample):
            return add_source(error, record)
        return explain_unexpected(error, describe_place(record), self.policy)

    def _check_hidden(self, record: Record) -> None:
        """Check that an encoder reads something of every slot of which the view hides a part."""
        for slot in {BY_FIELD[name].slot for name in record.hidden}:
            visible = [row for row in MODALITIES if row.slot == slot and row.field not in record.hidden]
            if not any(row.field in self.fields and self.readers[row.field].is_enabled for row in visible):
                nouns = " or ".join(row.noun for row in visible)
                message = f"this model has no encoder that reads {nouns}, and the view hides the rest of the {slot}"
                raise BadSample("no_slot", f"{message}; choose another view (data.views).")

    def _count(self, record: Record, header: media.Header, fillers: Collection[str]) -> dict[str, int]:
        """Return the amounts from which tokens are planned, by field."""
        amounts = {}
        for modality in PLANNED_MODALITIES:
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

    def _measure(self, record: Record, draft: Draft) -> tuple[int, int]:
        """Return the length of a sample, and its supervised tokens.

        They are sums over its pieces, unless ``max_length`` may cut it.
        """
        limit = self.chat.max_length
        length, targets = measure(draft.pieces, draft.counts, self._num_tokens)
        if length < limit:
            return length, targets
        ids, labels = encode_record(self.chat, record, draft.counts, prompts=self.prompts)
        targets = count_targets(labels)
        if not self.prompts and len(ids) >= limit:
            unlimited = replace(self.chat, max_length=Chat.max_length)
            if count_targets(encode_record(unlimited, record, draft.counts)[1]) > targets:
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
        description |= describe_missing(entry, bad)
        self.report.skipped.append(description | {"is_view": True} if is_view else description)


def probe_file(file: Path, *, timeout: float, policy: str) -> media.Header | BadSample:
    """Return the header of a file, or what is wrong with it.

    Args:
        file: a media file.
        timeout: seconds.
        policy: ``raise`` raises what no media file should cause.
    """
    try:
        return retry(lambda: media.probe(file, timeout), _is_passing)
    except BadSample as bad:
        return bad
    except Exception as error:
        unusable = explain_unexpected(error, str(file), policy)
        if isinstance(unusable, BadSample):
            return unusable
        raise unusable from error


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
    _check_answers(record)
    return chat.encode(record.messages, counts, num_context=record.num_context, **texts)


def split_record(chat: Chat, record: Record, *, prompts: bool = False) -> list[Piece]:
    """Return the pieces of the text that ``encode_record`` encodes, with its arguments.

    Raises:
        BadSample: an answer is empty.
    """
    texts = read_texts(record.meta)
    if prompts:
        return chat.split_prompt(record.messages, record.meta.get("prime", ""), **texts)
    _check_answers(record)
    return chat.split(record.messages, num_context=record.num_context, **texts)


def _check_answers(record: Record) -> None:
    for number, (role, text) in enumerate(record.messages):
        if role == "assistant" and not text.strip():
            raise BadSample("empty_answer", f"the answer of turn {number} is empty; write it, or remove the record.")


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


def describe_missing(entry: Entry, bad: BadSample) -> dict[str, Any]:
    """Return the state of the files of a sample that lacks one: it is looked at again when that changes."""
    if bad.reason != "missing_file":
        return {}
    files: Iterable[Path] = entry.files if isinstance(entry, Record) else filter(None, [bad.file])
    return {"state": [[str(file), *stat_file(file)] for file in files]}


def describe_place(record: Record) -> str:
    """Return the place, the id and the file of a record, for messages."""
    return f"{record.location} ({record.id}): {record.file}"
