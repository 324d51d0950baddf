"""Metrics of the tasks whose records list the options of their answers."""

from collections.abc import Iterable, Mapping
from typing import Any

from omnihuman.data.record import Entry, Record
from omnihuman.metric.choice import ChoiceAccuracy
from omnihuman.metric.emotion import EmotionRecall

Options = tuple[str, ...]


def build_option_metrics(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return task -> metric, for every task whose records have a list ``options`` in their ``meta``.

    A task whose records all have the same options, in any order, is scored by the recall of its classes (WAR and UAR),
    another one by the accuracy.

    Args:
        entries: of the validation; invalid ones are passed over here and counted by the data.

    Raises:
        ValueError: the answer of a record is not one of its options; the message names the record.
    """
    options: dict[str, set[Options]] = {}
    for entry in entries:
        if isinstance(entry, Record) and entry.task is not None and (listed := _read_options(entry)):
            options.setdefault(entry.task, set()).add(listed)
    metrics: dict[str, Any] = {}
    for task, lists in options.items():
        labels = sorted(set[str]().union(*lists))
        is_same = all(set(choices) == set(labels) for choices in lists)
        metrics[task] = EmotionRecall(labels) if is_same else ChoiceAccuracy()
    return metrics


def _read_options(record: Record) -> Options:
    """Return the options of the first answer, which validation asks for; empty if the record lists none."""
    meta = record.meta.get("meta")
    raw = meta.get("options") if isinstance(meta, Mapping) else None
    if not raw:
        return ()
    if not isinstance(raw, list) or not all(isinstance(option, str) for option in raw):
        raise ValueError(f"{record.location}: meta.options is {raw!r:.80}; expected a list of texts.")
    answer = next((text.strip() for role, text in record.messages if role == "assistant"), "")
    if answer not in raw:
        raise ValueError(f"{record.location}: the answer {answer!r:.80} is none of meta.options, {', '.join(raw)}.")
    return tuple(raw)
