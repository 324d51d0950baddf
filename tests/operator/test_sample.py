"""Subsets are drawn by ids, from each stratum."""

from collections import Counter

import pytest

from omnihuman.operator.base import Dropped
from omnihuman.operator.sample import Sample

ROWS = [{"id": f"{number:03d}", "label": "sad" if number % 4 else "happy"} for number in range(100)]


def draw(operator: Sample, rows: list[dict[str, str]] = ROWS) -> set[str]:
    outcomes = operator.decide(rows)
    return {row["id"] for row, outcome in zip(rows, outcomes, strict=True) if outcome == {"subset": "sample"}}


def test_every_stratum_has_its_rows() -> None:
    ids = draw(Sample(7, strata=["label"]))
    assert Counter(row["label"] for row in ROWS if row["id"] in ids) == {"sad": 7, "happy": 7}
    assert len(draw(Sample(7))) == 7 and len(draw(Sample(1000))) == 100


def test_a_larger_sample_has_the_smaller_one() -> None:
    assert draw(Sample(5)) < draw(Sample(9)) and draw(Sample(5)) == draw(Sample(5), ROWS[::-1])
    assert draw(Sample(5)) != draw(Sample(5, seed=1))


def test_others_stay_live_or_are_dropped() -> None:
    assert Sample(3).decide(ROWS).count({"subset": None}) == 97
    outcomes = Sample(3, keep="drawn").decide(ROWS)
    assert sum(isinstance(outcome, Dropped) for outcome in outcomes) == 97
    with pytest.raises(ValueError, match="size=0"):
        Sample(0)
