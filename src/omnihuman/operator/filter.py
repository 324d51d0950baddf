"""Filter: rows whose columns are within limits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omnihuman.operator.base import Dropped, Operator, Outcome, Row

LIMITS = ("least", "most", "among", "without")
KEYS = ("column", *LIMITS, "why")

Condition = Mapping[str, Any]
"""``{column: short_side, least: 480, why: too_small}``: ``least`` and ``most`` include their value, ``among`` names the
values of the column that fulfil it, ``without`` those that do not; ``why`` is the code of the drop, the column's name
without one."""


class Filter(Operator):
    """Drops the rows that break one of the conditions, each about one column.

    Args:
        conditions: ``[{column: short_side, least: 480}, {column: kind, among: [video], why: no_video}]``.
        scope: conditions of the rows that are looked at; the others stay.

    Raises:
        ValueError: a condition names no column or no limit, or has an unknown key.
    """

    def __init__(self, conditions: Sequence[Condition], scope: Sequence[Condition] = ()) -> None:
        self.conditions = parse_conditions(conditions, "filter: conditions")
        self.scope = parse_conditions(scope, "filter: scope")
        self.reads = {condition["column"]: None for condition in [*self.scope, *self.conditions]}

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            broken = None
            if find_broken(row, self.scope) is None:
                broken = find_broken(row, self.conditions)
            if broken is None:
                yield {}
            else:
                column = broken["column"]
                yield Dropped(broken.get("why", column), f"{column}={row[column]}")


def parse_conditions(conditions: Sequence[Condition], place: str) -> list[dict[str, Any]]:
    """Return conditions whose keys are known.

    Args:
        conditions: of a config.
        place: of them, for messages.

    Raises:
        ValueError: a condition names no column or no limit, or has an unknown key.
    """
    for number, condition in enumerate(conditions):
        unknown = [key for key in condition if key not in KEYS]
        has_limit = set(LIMITS) & set(condition)
        if unknown or "column" not in condition or not has_limit:
            problem = f"has the key {unknown[0]}" if unknown else f"is {dict(condition)}"
            raise ValueError(f"{place}[{number}] {problem}; expected column, and {', '.join(LIMITS)}, and why.")
    return [dict(condition) for condition in conditions]


def find_broken(row: Row, conditions: Sequence[Condition]) -> Condition | None:
    """Return the first condition that a row does not fulfil.

    >>> find_broken({"score": 4}, [{"column": "score", "least": 5}])
    {'column': 'score', 'least': 5}
    """
    return next((condition for condition in conditions if not _is_within(row[condition["column"]], condition)), None)


def _is_within(value: Any, condition: Condition) -> bool:
    least, most, among = (condition.get(key) for key in ("least", "most", "among"))
    has_bound = least is not None or most is not None
    if value is None and has_bound:
        return among is not None and None in among
    is_large = least is None or value >= least
    is_small = most is None or value <= most
    is_named = among is None or value in among
    return is_large and is_small and is_named and value not in condition.get("without", ())
