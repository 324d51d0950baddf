"""A record in each view and turn: the samples that it gives, before their sizes are known."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from omnihuman.data.media import Header
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import BadSample, Record, select_views
from omnihuman.data.turns import select_question, split_turns
from omnihuman.modality import MODALITIES, View

Missing = Literal["absent", "fill"]


class ViewSelection:
    """Lists the samples that a record gives.

    Args:
        readers: of the media, by field.
        views: each record is used once per view that leaves something of it. Without views: once, as it is.
        needs: slots that every file must be able to fill, besides those that its record needs.
        missing: ``absent`` removes a slot that the file cannot fill from the text, ``fill`` fills it.
        by_turn: each answer of a conversation is a sample, see ``split_turns``.
        prompts: only a question of each conversation is used, see ``select_question``.

    Attributes:
        num_dropped: records from whose text a slot was removed.
    """

    def __init__(
        self,
        readers: Mapping[str, Reader],
        views: Sequence[View],
        needs: Sequence[str],
        missing: Missing,
        *,
        by_turn: bool,
        prompts: bool,
    ) -> None:
        self.readers, self.views, self.needs, self.missing = readers, tuple(views), tuple(needs), missing
        self.by_turn, self.prompts = by_turn, prompts
        self.num_dropped = 0

    def select(self, record: Record, header: Header) -> Iterator[tuple[Record, list[str]]]:
        """Yield the record in each view and turn, with the slots that a filler fills as the file cannot.

        Raises:
            BadSample: nothing is left in any view, or something is missing that the record needs.
        """
        missing = self._find_missing(record, header)
        if missing and self.missing == "absent":
            record = record.drop_slots(missing)
            self.num_dropped += 1
        records = select_views(record, self.views) if self.views else [record]
        if missing and not records:
            message = f"{record.file} has no {' and no '.join(missing)}."
            raise BadSample("no_media", f"{record.location} ({record.id}): {message}")
        for viewed in records:
            for turn in self._select_turns(viewed, record):
                yield turn, [slot for slot in missing if slot in turn.slots]

    def _select_turns(self, viewed: Record, record: Record) -> list[Record]:
        """Return the turns of a record in one view, without those that lose all of their media."""
        if self.prompts:
            return [select_question(viewed)]
        if not self.by_turn or not viewed.slots:
            return [viewed]
        pairs = zip(split_turns(viewed), split_turns(record), strict=True)
        return [turn for turn, whole in pairs if turn.slots or not whole.slots]

    def _find_missing(self, record: Record, header: Header) -> list[str]:
        """Return the slots of the text that the file cannot fill.

        Raises:
            BadSample: the record needs one of them, or nothing else is left.
        """
        available = set()
        for modality in MODALITIES:
            is_wanted = modality.slot in record.slots and modality.slot not in available
            if is_wanted and self.readers[modality.field].is_available(record, header):
                available.add(modality.slot)
        missing = [slot for slot in record.slots if slot not in available]
        if not missing:
            return missing
        is_needed = not {*record.needs, *self.needs}.isdisjoint(missing)
        if is_needed or len(missing) == len(record.slots):
            message = f"{record.file} has no {' and no '.join(missing)}, which the text names"
            raise BadSample("no_media", f"{record.location} ({record.id}): {message}; remove the tag from the record.")
        return missing
