"""Options of records: the answers that a question offers, and the labels of a task."""

from collections.abc import Iterable, Mapping, Sequence

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.record import Record


def read_options(record: Record) -> tuple[str, ...]:
    """Return the answers that a record offers, its ``meta.options``; empty for a record without them.

    Raises:
        BadSample: they are no list of different texts.
    """
    annotation = record.meta.get("meta")
    options = annotation.get("options") if isinstance(annotation, Mapping) else None
    if options is None:
        return ()
    place = f"{record.location}: meta.options"
    is_list = isinstance(options, list) and len(options) > 1
    if not is_list or not all(isinstance(option, str) and option.strip() for option in options):
        raise BadSample("malformed_record", f"{place} must list two texts or more, got {options!r:.80}.")
    if len({option.strip().casefold() for option in options}) < len(options):
        raise BadSample("malformed_record", f"{place} lists a text twice: {options!r:.200}; keep it once.")
    return tuple(options)


def find_labels(options: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the labels of a task from the options of its records, in the order of the first record.

    A classification task offers the same options in every record, in any order. Empty for every other task: with
    options of its own in each record (multiple choice), or without options.

    >>> find_labels([("sad", "happy"), ("happy", "sad")]), find_labels([("red", "blue"), ("red", "gray")])
    (('sad', 'happy'), ())
    """
    labels: tuple[str, ...] | None = None
    for texts in options:
        if labels is None:
            labels = tuple(texts)
        if set(texts) != set(labels):
            return ()
    return labels or ()
