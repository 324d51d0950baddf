"""Metrics of the tasks whose records list the options of their answers."""

from collections.abc import Iterable
from typing import Any

from omnihuman.data.options import find_labels, read_options
from omnihuman.data.record import Entry, Record
from omnihuman.metric.choice import ChoiceAccuracy
from omnihuman.metric.emotion import EmotionRecall


def build_option_metrics(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return task -> metric, for every task whose records list options.

    A task whose records all have the same options, in any order, is scored by the recall of its classes (WAR and UAR),
    another one by the accuracy.

    Args:
        entries: of the validation; invalid ones are passed over here and counted by the data.

    Raises:
        ValueError: the options of a record are invalid, or its first answer, which validation asks for, is none of
            them; the message names the record.
    """
    tasks: dict[str, list[tuple[str, ...]]] = {}
    for entry in entries:
        if isinstance(entry, Record) and entry.task is not None and (options := read_options(entry)):
            answer = next((text.strip() for role, text in entry.messages if role == "assistant"), "")
            if answer not in options:
                listed = ", ".join(options)
                raise ValueError(f"{entry.location}: the answer {answer!r:.80} is none of meta.options, {listed}.")
            tasks.setdefault(entry.task, []).append(options)
    metrics: dict[str, Any] = {}
    for task, lists in tasks.items():
        labels = find_labels(lists)
        metrics[task] = EmotionRecall(labels) if labels else ChoiceAccuracy()
    return metrics
