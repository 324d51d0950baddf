"""Review: rows wait until people have judged them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from omnihuman.operator.base import TRACKS, Columns, Dropped, Operator, Outcome, Row, SetupError
from omnihuman.operator.verdicts import (
    Verdict,
    conclude,
    count_people,
    edit_value,
    find_file,
    group_latest,
    make_key,
    read_verdicts,
)

log = logging.getLogger(__name__)

KINDS: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "pairs": pa.list_(pa.struct({"question": pa.string(), "answer": pa.string()})),
}
"""Kind of a column that people may edit -> its type in the table."""


class Review(Operator):
    """Rows -> the rows that people accept, as they are or edited; the others are dropped: rejected, unsure or disputed.

    ``omnihuman review`` shows the rows. ``<name>_verdict`` is ``accepted``, ``edited``, or null for a row that nobody
    was to judge, and ``<name>_<column>`` the value of each editable column, edited or not. Verdicts belong to the
    content that people saw: a row that is made anew with another content waits again.

    Reference: Omni-Emotion §3.2 (HRE) and FaVChat §3 have their data checked by people. Differs from them: two people
    judge a share of the rows, and scores of models are hidden until the first verdict, because people follow them.

    Args:
        name: of the columns, and of the file of the verdicts.
        mode: ``wait`` for people, or ``skip`` them: all rows stay.
        subset: of ``sample``, whose rows are judged; ``null``: all rows.
        show: title -> column that people see.
        edit: column -> kind (``text``, ``texts``, ``pairs``) that people may edit.
        hide: title -> column that a person sees after the first verdict.
        share: of the rows that two people judge.
        faces: people see the boxes of the tracks of ``faces``.

    Raises:
        ValueError: the share is none, or a kind is unknown.
    """

    incidental = ("share",)
    is_barrier = True

    def __init__(
        self,
        name: str = "review",
        mode: Literal["wait", "skip"] = "wait",
        subset: str | None = None,
        show: Mapping[str, str] | None = None,
        edit: Mapping[str, str] | None = None,
        hide: Mapping[str, str] | None = None,
        share: float = 0.1,
        faces: bool = True,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"review: share={share}: expected a share of the rows, from 0 to 1.")
        for column, kind in (edit or {}).items():
            if kind not in KINDS:
                raise ValueError(f"review: edit.{column}={kind}: choose {', '.join(KINDS)}.")
        self.name, self.mode, self.subset, self.share = name, mode, subset, share
        self.show, self.edit, self.hide = dict(show or {}), dict(edit or {}), dict(hide or {})
        reads: dict[str, Any] = dict.fromkeys([*self.show.values(), *self.hide.values()])
        reads |= {column: KINDS[kind] for column, kind in self.edit.items()}
        if faces:
            reads["faces"] = TRACKS
        if subset is not None:
            reads["subset"] = pa.string()
        self.reads: Columns = reads
        self.writes: Columns = {f"{name}_verdict": pa.string()}
        self.writes |= {f"{name}_{column}": KINDS[kind] for column, kind in self.edit.items()}

    def setup(self, folder: Path) -> None:
        self.folder = folder
        self.verdicts: Mapping[str, Mapping[str, Verdict]] = {}
        if self.mode == "wait":
            verdicts, problems = read_verdicts(find_file(folder.parent, self.name))
            self.verdicts = group_latest(verdicts)
            for problem in problems:
                log.warning(problem)

    def asks_about(self, row: Row) -> bool:
        """Return true for a row that people judge."""
        return self.mode == "wait" and (self.subset is None or row["subset"] == self.subset)

    def identify(self, row: Row) -> str:
        """Return the fingerprint of what people see of a row."""
        columns = (*self.show.values(), *self.edit, *self.hide.values())
        return make_key(row["id"], {column: row[column] for column in columns})

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            if self.asks_about(row):
                yield self._judge(row)
            else:
                yield self._pass(row, None, {})

    def _judge(self, row: Row) -> Outcome:
        """Return the outcome of a row by its verdicts.

        Raises:
            SetupError: it has not enough of them.
        """
        key = self.identify(row)
        people = self.verdicts.get(key, {})
        if len(people) < count_people(key, self.share):
            raise SetupError(
                f"{self.name}: rows wait for people: omnihuman review out={self.folder.parent}; give the same command "
                f"again when they are judged, or review=skip to go on without."
            )
        end = conclude(people)
        if end not in ("accepted", "edited"):
            return Dropped(end, ", ".join(f"{name}: {verdict.verdict}" for name, verdict in sorted(people.items())))
        edits: dict[str, Any] = {}
        for verdict in people.values():  # of two edits of a column the later one
            edits |= {column: edit_value(row[column], patch) for column, patch in verdict.edits.items()}
        return self._pass(row, end, edits)

    def _pass(self, row: Row, verdict: str | None, edits: Mapping[str, Any]) -> Row:
        values = {f"{self.name}_{column}": edits.get(column, row[column]) for column in self.edit}
        return {f"{self.name}_verdict": verdict, **values}
