"""Sample: a subset of rows that has as many of each stratum, drawn by their ids."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from omnihuman.operator.base import Dropped, Global, Outcome, Row, columns
from omnihuman.operator.rows import select_columns


class Sample(Global):
    """Names the subset of each row: ``name`` for those that are drawn, null for the others, which stay live.

    A row is drawn by the digest of its id: the same rows are drawn whatever else is there, as far as they fit.

    Reference: Omni-Emotion §3.2 draws 700 clips of each data set for people; HumanOmni §3 draws 50K.

    Args:
        name: of the subset.
        size: rows of each stratum, or of all rows without strata.
        strata: columns whose values make the strata.
        keep: ``all`` rows stay live; ``drawn``: the others are dropped.
        seed: of the draw.

    Raises:
        ValueError: the size is no whole number of at least 1, or ``keep`` is unknown.
    """

    def __init__(
        self, size: int, name: str = "sample", strata: Sequence[str] = (), keep: str = "all", seed: int = 0
    ) -> None:
        if size < 1 or keep not in ("all", "drawn"):
            raise ValueError(f"sample: got size={size}, keep={keep}; expected at least 1, and all or drawn.")
        self.size, self.name, self.strata, self.keep, self.seed = size, name, list(strata), keep, seed
        self.reads = self.compares = dict.fromkeys(self.strata)

    decides = columns(subset=pa.string())

    def decide(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        table = select_columns(rows, "id", *self.strata)
        draws = [self._draw(row_id) for row_id in table["id"].to_pylist()]
        strata = [tuple(map(str, row.values())) for row in table.select(self.strata).to_pylist()]
        counts = Counter[tuple[str, ...]]()
        outcomes: list[Outcome] = [{}] * len(rows)
        for number in sorted(range(len(rows)), key=lambda number: (draws[number], number)):
            stratum = strata[number] if self.strata else ()
            counts[stratum] += 1
            if counts[stratum] <= self.size:
                outcomes[number] = {"subset": self.name}
            elif self.keep == "drawn":
                outcomes[number] = Dropped("not_drawn", ", ".join(stratum))
            else:
                outcomes[number] = {"subset": None}
        return outcomes

    def _draw(self, row_id: str) -> bytes:
        return hashlib.sha256(f"{self.seed} {row_id}".encode()).digest()
