"""Limits include their values, and a condition says what it is about."""

from pathlib import Path
from typing import Any

import pytest

from omnihuman.operator.base import Dropped
from omnihuman.operator.filter import Filter
from tests.operator.conftest import apply_one


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ({"least": 5}, [5, 6]),
        ({"most": 5}, [4, 5]),
        ({"least": 5, "most": 5}, [5]),
        ({"among": [4, None]}, [4, None]),
        ({"without": [5]}, [4, 6, None]),
        ({"least": 5, "without": [None]}, [5, 6]),
        ({"least": 5, "among": [6, None]}, [6, None]),
    ],
)
def test_rows_within_limits_stay(tmp_path: Path, condition: dict[str, Any], values: list[Any]) -> None:
    operator = Filter([{"column": "n", **condition}])
    stay = []
    for value in (4, 5, 6, None):
        if apply_one(operator, tmp_path, {"n": value}) == {}:
            stay.append(value)
    assert stay == values


def test_the_first_broken_condition_is_the_reason(tmp_path: Path) -> None:
    operator = Filter([{"column": "a", "least": 1}, {"column": "b", "least": 1, "why": "small"}])
    assert apply_one(operator, tmp_path, {"a": 0, "b": 0}) == Dropped("a", "a=0")
    assert apply_one(operator, tmp_path, {"a": 1, "b": 0}) == Dropped("small", "b=0")
    assert set(operator.reads) == {"a", "b"}


def test_rows_elsewhere_are_not_looked_at(tmp_path: Path) -> None:
    operator = Filter([{"column": "share", "least": 0.6}], scope=[{"column": "dataset", "without": ["CelebV-HQ"]}])
    assert set(operator.reads) == {"dataset", "share"}
    assert apply_one(operator, tmp_path, {"dataset": "CelebV-HQ", "share": None}) == {}
    assert apply_one(operator, tmp_path, {"dataset": "HMDB51", "share": 0.5}) == Dropped("share", "share=0.5")


@pytest.mark.parametrize("condition", [{"least": 1}, {"column": "a"}, {"column": "a", "above": 1}])
def test_a_condition_without_a_limit_raises(condition: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"conditions\[0\].*least, most, among"):
        Filter([condition])
