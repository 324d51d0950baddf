"""Sample: a subset of rows that has as many of each stratum, drawn by their ids."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from omnihuman.operator.base import Dropped, Global, Outcome, Row, columns


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
        order = sorted(range(len(rows)), key=lambda number: (self._draw(rows[number]), number))
        counts = Counter[tuple[str, ...]]()
        outcomes: list[Outcome] = [{} for _ in rows]
        for number in order:
            stratum = tuple(str(rows[number][column]) for column in self.strata)
            counts[stratum] += 1
            if counts[stratum] <= self.size:
                outcomes[number] = {"subset": self.name}
            elif self.keep == "drawn":
                outcomes[number] = Dropped("not_drawn", ", ".join(stratum))
            else:
                outcomes[number] = {"subset": None}
        return outcomes

    def _draw(self, row: Row) -> str:
        return hashlib.sha256(f"{self.seed} {row['id']}".encode()).hexdigest()
