"""Scores as sums over questions, so that every metric can be resampled."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """A score with the contribution of each question.

    Column k has the ratio ``numerators[:, k].sum() / denominators[:, k].sum()``. The value is ``scale`` times the mean
    of these ratios (``combine="mean"``), or the mean of the harmonic means of columns 2j and 2j + 1 (``"harmonic"``).
    So WAR has one column, UAR one for each class, a mean of folds one for each fold, WER has edits over words, and an
    F1 of mean precision and mean recall has two columns. A column whose denominators are all 0 is ignored.

    Attributes:
        name: key in ``metrics.json``: ``war``, ``dfew/uar``.
        ids: of the questions ``[n]``.
        numerators: ``[n K]``.
        denominators: ``[n K]``.
        combine: mean over the columns.
        scale: factor of the value; 100 for percent.
        higher_is_better: direction of improvement.
        strata: of the questions ``[n]``: resampling keeps the size of each stratum (the classes of a UAR).
        clusters: of the questions ``[n]``: resampling draws complete clusters (all questions about a video, a speaker).
        columns: names of the columns, such as a class or a fold. Two scores are compared column by column.
        num_questions: questions in total, where some have no score (a failed judge); ``None``: ``n``.
        note: footnote of a table: the parser, the judge, the tokenizer.

    Raises:
        ValueError: an id is duplicated, or a contribution is NaN.

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
    num_questions: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        n, num_columns = len(self.ids), self.numerators.shape[-1]
        assert self.numerators.shape == self.denominators.shape == (n, num_columns), "a row for each question"
        assert self.combine == "mean" or num_columns % 2 == 0, "harmonic means need pairs of columns"
        assert self.strata is None or len(self.strata) == n, "a stratum for each question"
        assert self.clusters is None or len(self.clusters) == n, "a cluster for each question"
        assert len(self.columns) in (0, num_columns), "a name for each column"
        is_nan = np.isnan(self.numerators + self.denominators).any(axis=1)
        if is_nan.any():
            first = self.ids[int(is_nan.argmax())]
            raise ValueError(f"{self.name}: the contribution of {first!r} is NaN; drop questions without a score.")
        duplicates = [name for name, count in Counter(self.ids).items() if count > 1]
        if duplicates:
            raise ValueError(
                f"{self.name}: {len(duplicates)} ids are duplicated, such as {duplicates[0]!r}; ids must be unique."
            )

    @classmethod
    def mean(cls, name: str, ids: Sequence[str], values: Sequence[float | int], **options: object) -> "Score":
        """Build the mean of one value per question."""
        column = np.asarray(values, dtype=np.float64)[:, None]
        return cls(name, tuple(ids), column, np.ones_like(column), **options)  # type: ignore[arg-type]

    @classmethod
    def macro(
        cls, name: str, ids: Sequence[str], values: Sequence[float | int], classes: Sequence[str], **options: object
    ) -> "Score":
        """Build the mean over classes of the mean within each class; resampling keeps the class sizes.

        >>> Score.macro("uar", ["a", "b", "c"], [1, 0, 1], ["sad", "sad", "happy"]).value
        75.0
        """
        columns = sorted(set(classes))
        membership = one_hot(classes, columns)
        numerators = membership * np.asarray(values, dtype=np.float64)[:, None]
        return cls(name, tuple(ids), numerators, membership, strata=tuple(classes), columns=tuple(columns), **options)  # type: ignore[arg-type]

    @property
    def coverage(self) -> float:
        """The share of questions that have a score."""
        if self.num_questions is None:
            return len(self.ids) / max(1, len(self.ids))
        return len(self.ids) / max(1, self.num_questions)

    @property
    def value(self) -> float:
        """The score; NaN where every column is ignored."""
        return float(self.weighted(np.ones((1, len(self.ids))))[0])

    def weighted(self, weights: Array) -> Array:
        """Return the value for each of R weightings of the questions: ``[R n] -> [R]``."""
        above, below = weights @ self.numerators, weights @ self.denominators
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = above / below  # NaN where all denominators of a column are 0
            if self.combine == "harmonic":
                first, second = ratios[:, 0::2], ratios[:, 1::2]
                ratios = np.where(first + second > 0, 2 * first * second / (first + second), 0.0 * (first + second))
            is_valid = ~np.isnan(ratios)
            means: Array = np.where(is_valid, ratios, 0.0).sum(axis=1) / is_valid.sum(axis=1)
        return self.scale * means


def one_hot(labels: Sequence[object], columns: Sequence[object]) -> Array:
    """Return 1 where a label equals a column: ``[n K]``.

    >>> one_hot(["b", "a"], ["a", "b"]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    index = {column: k for k, column in enumerate(columns)}
    matrix = np.zeros((len(labels), len(columns)))
    matrix[np.arange(len(labels)), [index[label] for label in labels]] = 1
    return matrix


def group_positions(labels: Sequence[T]) -> dict[T, list[int]]:
    """Return the positions of each label, in the order of first occurrence.

    >>> group_positions(["b", "a", "b"])
    {'b': [0, 2], 'a': [1]}
    """
    positions: dict[T, list[int]] = {}
    for position, label in enumerate(labels):
        positions.setdefault(label, []).append(position)
    return positions


def select(values: Sequence[T], positions: Sequence[int]) -> list[T]:
    """Return the values at the positions."""
    return [values[position] for position in positions]


def equal(first: Sequence[object], second: Sequence[object]) -> list[float]:
    """Return 1 where two values are equal, else 0.

    >>> equal(["sad", None], ["sad", "happy"])
    [1.0, 0.0]
    """
    return [float(one == other) for one, other in zip(first, second, strict=True)]
