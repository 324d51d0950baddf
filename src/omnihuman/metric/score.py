"""What every metric comes down to: sums over questions, so that any of them can be resampled."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A figure with what each question adds to it.

    Column k has the ratio ``numerators[:, k].sum() / denominators[:, k].sum()``; the figure is ``scale`` times the mean
    of these ratios (``combine="mean"``), or the mean of the harmonic means of columns 2j and 2j + 1 (``"harmonic"``).
    So WAR has one column, UAR one for each class, a mean of folds one for each fold, WER edits over words, and an F1 of
    mean precision and mean recall two. A column without any denominator does not count.

    Attributes:
        name: key in ``metrics.json``: ``war``, ``dfew/uar``.
        ids: of the questions ``[n]``.
        numerators: ``[n K]``.
        denominators: ``[n K]``.
        combine: of the columns.
        scale: of the figure; 100 for percent.
        higher_is_better: the direction.
        strata: of the questions ``[n]``: resampling keeps how many each has (the classes of a UAR).
        clusters: of the questions ``[n]``: resampling takes whole ones (the questions of one video, of one speaker).
        columns: what each stands for, the class or the fold: two scores that are compared are laid side by side by it.
        asked: questions that should have been scored, where some are missing (a judge that failed); ``None``: ``n``.
        note: what a table's foot says: the parser, the judge, the tokenizer.

    Raises:
        ValueError: a question is there twice, or adds what is no number.

    >>> Score.mean("war", ["a", "b"], [1, 0]).value
    50.0
    """

    name: str
    ids: tuple[str, ...]
    numerators: Array
    denominators: Array
    combine: Literal["mean", "harmonic"] = "mean"
    scale: float = 100.0
    higher_is_better: bool = True
    strata: tuple[str, ...] | None = None
    clusters: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    asked: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        n, columns = len(self.ids), self.numerators.shape[-1]
        assert self.numerators.shape == self.denominators.shape == (n, columns), "a row for each question"
        assert self.combine == "mean" or columns % 2 == 0, "harmonic means are of pairs of columns"
        assert all(some is None or len(some) == n for some in (self.strata, self.clusters)), "one for each question"
        assert len(self.columns) in (0, columns), "a name for each column"
        if (wrong := np.isnan(self.numerators + self.denominators).any(axis=1)).any():
            where = self.ids[int(wrong.argmax())]
            raise ValueError(
                f"{self.name}: what {where!r} adds is no number (NaN); leave out what could not be scored."
            )
        if twice := [each for each, times in Counter(self.ids).items() if times > 1]:
            raise ValueError(f"{self.name}: {len(twice)} questions are there twice, {twice[0]!r} among them; keep one.")

    @classmethod
    def mean(cls, name: str, ids: Sequence[str], values: Sequence[float | int], **options: object) -> "Score":
        """The plain mean of one value a question."""
        column = np.asarray(values, dtype=np.float64)[:, None]
        return cls(name, tuple(ids), column, np.ones_like(column), **options)  # type: ignore[arg-type]

    @classmethod
    def macro(
        cls, name: str, ids: Sequence[str], values: Sequence[float | int], classes: Sequence[str], **options: object
    ) -> "Score":
        """The mean over classes of the mean within each; resampling keeps the classes' sizes.

        >>> Score.macro("uar", ["a", "b", "c"], [1, 0, 1], ["sad", "sad", "happy"]).value
        75.0
        """
        known = sorted(set(classes))
        ones = np.asarray([[float(one == each) for each in known] for one in classes]).reshape(len(classes), len(known))
        column = np.asarray(values, dtype=np.float64)[:, None]
        return cls(name, tuple(ids), ones * column, ones, strata=tuple(classes), columns=tuple(known), **options)  # type: ignore[arg-type]

    @property
    def coverage(self) -> float:
        """The share of the questions that were scored."""
        return len(self.ids) / max(1, len(self.ids) if self.asked is None else self.asked)

    @property
    def value(self) -> float:
        """The figure; NaN where no column has a denominator."""
        return float(self.of(np.ones((1, len(self.ids))))[0])

    def of(self, weights: Array) -> Array:
        """The figure for each of R ways to weigh the questions: ``[R n] -> [R]``."""
        above, below = weights @ self.numerators, weights @ self.denominators
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = above / below  # NaN where a column has no denominator
            if self.combine == "harmonic":
                first, second = ratios[:, 0::2], ratios[:, 1::2]
                ratios = np.where(first + second > 0, 2 * first * second / (first + second), 0.0 * (first + second))
            counted = ~np.isnan(ratios)
            figures: Array = np.where(counted, ratios, 0.0).sum(axis=1) / counted.sum(axis=1)
        return self.scale * figures
