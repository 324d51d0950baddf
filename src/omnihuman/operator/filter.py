"""Filter: rows whose columns are within limits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omnihuman.operator.base import Dropped, Operator, Outcome, Row

KEYS = ("column", "least", "most", "among", "why")


class Filter(Operator):
    """Drops the rows that break one of the conditions, each about one column.

    Args:
        conditions: ``[{column: short_side, least: 480}, {column: kind, among: [video], why: no_video}]``; ``least`` and
            ``most`` include their value, ``why`` is the code of the drop, the column's name without one.

    Raises:
        ValueError: a condition names no column or no limit, or has an unknown key.
    """

    def __init__(self, conditions: Sequence[Mapping[str, Any]]) -> None:
        for number, condition in enumerate(conditions):
            unknown = [key for key in condition if key not in KEYS]
            has_limit = {"least", "most", "among"} & set(condition)
            if unknown or "column" not in condition or not has_limit:
                problem = f"has the key {unknown[0]}" if unknown else f"is {dict(condition)}"
                raise ValueError(
                    f"filter: conditions[{number}] {problem}; expected column, and least, most or among, and why."
                )
        self.conditions = [dict(condition) for condition in conditions]
        self.reads = {condition["column"]: None for condition in self.conditions}

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            yield self._check(row)

    def _check(self, row: Row) -> Outcome:
        for condition in self.conditions:
            column = condition["column"]
            value = row[column]
            if not _is_within(value, condition):
                return Dropped(condition.get("why", column), f"{column}={value}")
        return {}


def _is_within(value: Any, condition: Mapping[str, Any]) -> bool:
    if value is None:
        return None in condition.get("among", ())
    least, most, among = (condition.get(key) for key in ("least", "most", "among"))
    is_large = least is None or value >= least
    is_small = most is None or value <= most
    return is_large and is_small and (among is None or value in among)
