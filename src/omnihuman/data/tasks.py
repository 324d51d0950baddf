"""Tasks of records: those that a run uses and how often, and the records that it skips for their task."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any, Protocol, runtime_checkable

from omnihuman.data.exclusion import Description
from omnihuman.data.record import Entry, Record
from omnihuman.modality import View

TASK_NOT_LISTED = "task_not_listed"
"""Reason of a record that is skipped as ``data.tasks`` does not list its task. The config has chosen so: it counts for
no ceiling on bad samples."""

NUM_SHOWN = 3
"""Files and tasks that a line on skipped records names; those with most records come first."""

Tasks = Sequence[str] | Mapping[str, int | float | None] | None
"""Tasks to use, or how often each is used in an epoch (``None``: not listed); ``None`` for all tasks, once."""


@runtime_checkable
class RecordSource(Protocol):
    """The part of an ``omnihuman.source`` that the data uses; sources stand above the data."""

    @property
    def location(self) -> str:
        """The file or folder of the records, for messages."""

    def records(self) -> Iterator[Entry]:
        """Yield the records, always in the same order."""


def check_tasks(tasks: Tasks) -> Tasks:
    """Return the tasks, without those whose weight is ``None``: an overlay of a size cannot remove a key.

    Raises:
        ValueError: a weight is no number or negative, or all weights are 0.
    """
    if isinstance(tasks, Mapping):
        tasks = {task: weight for task, weight in tasks.items() if weight is not None}
        invalid = {task: weight for task, weight in tasks.items() if not _is_weight(weight)}
        if invalid:
            raise ValueError(f"data.tasks: a weight must be a number of 0 or more, got {invalid}.")
        if tasks and not any(tasks.values()):
            raise ValueError(f"data.tasks: the weight of every task is 0 ({', '.join(tasks)}): raise one above 0.")
    return tasks


def _is_weight(weight: Any) -> bool:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return is_number and 0 <= float(weight) < float("inf")


def task_weight(tasks: Tasks, task: str | None) -> float:
    """Return how often the records of a task are used in an epoch; those without a task are used once.

    >>> task_weight({"emotion": 2}, "emotion"), task_weight(["emotion"], "emotion"), task_weight({"emotion": 2}, None)
    (2.0, 1.0, 1.0)
    """
    if isinstance(tasks, Mapping) and task is not None:
        return float(tasks[task] or 0)
    return 1.0


class TaskSelection:
    """Selects the records of the listed tasks, and describes those that it skips.

    Args:
        tasks: to use; a record without a task is always used.

    Attributes:
        skipped: split -> location of a source -> its records of other tasks, as far as they were read.

    Raises:
        ValueError: see ``check_tasks``.
    """

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = check_tasks(tasks)
        self.skipped: dict[str, dict[str, Sequence[Description]]] = {"train": {}, "val": {}}

    def select(self, source: RecordSource, split: str) -> Iterator[Entry]:
        """Yield the entries of a source to use."""
        skipped = list[Description]()
        self.skipped[split][source.location] = skipped
        for entry in source.records():
            used, unlisted = self.divide([entry])
            skipped += unlisted
            yield from used

    def divide(self, entries: Iterable[Entry]) -> tuple[list[Entry], list[Description]]:
        """Return the entries to use, and the descriptions of those that are not."""
        if self.tasks is None:
            return list(entries), []
        used, unlisted = list[Entry](), list[Description]()
        for entry in entries:
            if isinstance(entry, Record) and entry.task is not None and entry.task not in self.tasks:
                unlisted.append(describe_unlisted(entry))
            else:
                used.append(entry)
        return used, unlisted

    @property
    def unlisted(self) -> list[Description]:
        """The skipped training records."""
        return list(chain(*self.skipped["train"].values()))

    def describe(self, used: Collection[str | None]) -> Iterator[str]:
        """Yield lines on skipped records, and on listed tasks that no record has.

        Args:
            used: tasks of the planned samples, empty if nothing is planned.
        """
        yield from describe_unlisted_tasks(self.skipped["train"] | self.skipped["val"])
        if used:
            yield from describe_absent_tasks(self.tasks, used, count_tasks(self.unlisted))


def select_questions(
    source: RecordSource, tasks: Sequence[str], view: View, needs: Sequence[str], limit: int | None
) -> list[Record]:
    """Return the records of tasks whose text names all slots of ``needs`` and of which a view leaves something."""
    records = []
    for record in source.records():
        if isinstance(record, Record) and record.task in tasks and not set(needs) - set(record.slots):
            records.append(record)
    return [record for record in records if record.restrict(view) is not None][:limit]


def describe_unlisted(record: Record) -> Description:
    """Return a record as a skipped sample whose task is not listed."""
    return {
        "id": record.id,
        "reason": TASK_NOT_LISTED,
        "file": "" if record.kind == "text" else str(record.file),
        "message": f"{record.location} ({record.id}): data.tasks does not list the task {record.task}",
        "task": record.task,
    }


def count_tasks(unlisted: Iterable[Description]) -> Counter[str]:
    """Return the numbers of skipped records by task."""
    return Counter(entry["task"] for entry in unlisted)


def describe_unlisted_tasks(unlisted: Mapping[str, Sequence[Description]]) -> Iterator[str]:
    """Yield one line on all records that are skipped for their task, if there are any.

    Args:
        unlisted: location of a source -> its skipped records.

    >>> list(describe_unlisted_tasks({"a.json": [{"task": "asr"}, {"task": "asr"}], "b.json": []}))
    ['a.json: 2 records are skipped, as data.tasks does not list their tasks (2 asr)']
    """
    locations = [location for location, entries in unlisted.items() if entries]
    counts = count_tasks(chain(*unlisted.values()))
    if counts:
        places = _shorten(locations, f"{len(locations) - NUM_SHOWN} more")
        frequent = [f"{count} {task}" for task, count in counts.most_common()]
        num_rest = counts.total() - sum(count for _, count in counts.most_common(NUM_SHOWN))
        tasks = _shorten(frequent, f"{num_rest} of {len(counts) - NUM_SHOWN} more")
        yield f"{places}: {counts.total()} records are skipped, as data.tasks does not list their tasks ({tasks})"


def _shorten(texts: Sequence[str], rest: str) -> str:
    """Return the first texts, and ``rest`` in the place of the others."""
    return ", ".join(texts if len(texts) <= NUM_SHOWN + 1 else [*texts[:NUM_SHOWN], rest])


def describe_absent_tasks(tasks: Tasks, used: Collection[str | None], unlisted: Collection[str]) -> Iterator[str]:
    """Yield a line where tasks are listed that no record has.

    Args:
        tasks: that are listed.
        used: tasks of the records that are used.
        unlisted: tasks of the records that are skipped.

    >>> list(describe_absent_tasks(["emotion", "asrr"], {"emotion"}, {"asr"}))
    ['data.tasks lists asrr, but no record has this task; do you mean asr?']
    """
    absent = [task for task in tasks or () if task not in used]
    if absent:
        matches = list(chain(*(get_close_matches(task, list(unlisted), 1) for task in absent)))
        cure = f"; do you mean {', '.join(matches)}?" if matches else "."
        noun = "this task" if len(absent) == 1 else "these tasks"
        yield f"data.tasks lists {', '.join(absent)}, but no record has {noun}{cure}"


def explain_no_sample(tasks: Tasks, unlisted: Counter[str], locations: Sequence[str]) -> str | None:
    """Return the message for records that are all skipped for their task; ``None`` if none is.

    >>> explain_no_sample(["emotion"], Counter(mood=3), ["a.json"])
    'a.json: data.tasks lists emotion, but the tasks of the records are 3 mood: list them (data.tasks=[mood]).'
    """
    if not unlisted or tasks is None:
        return None
    listed = ", ".join(tasks) or "no task"
    return (
        f"{', '.join(locations)}: data.tasks lists {listed}, but the tasks of the records are {_join(unlisted)}: list "
        f"them (data.tasks=[{','.join(unlisted)}])."
    )


def _join(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
