"""Annotated clips that occur twice: the same record again, or another answer to the same question."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from omnihuman.data.record import BadSample
from omnihuman.source.annotation import AnnotatedRecord


def mark_repeats(items: Sequence[AnnotatedRecord], *, is_class: bool) -> list[AnnotatedRecord]:
    """Return the records with an error for those that occur again.

    Args:
        items: the records.
        is_class: answers are classes, so that two of them for the same question contradict each other: neither record
            can be used. Free text may differ.
    """
    answers: dict[Hashable, list[AnnotatedRecord]] = {}
    for item in items:
        if item.raw is not None:
            answers.setdefault(_key_question(item), []).append(item)
    marked = []
    for item in items:
        rivals = answers[_key_question(item)] if item.raw is not None else []
        error = item.error or _find_error(item, rivals, is_class)
        marked.append(replace(item, error=error))
    return marked


def _key_question(item: AnnotatedRecord) -> Hashable:
    """Return what identifies the clip and the question of a record."""
    assert item.raw is not None
    return item.files, item.raw.get("start"), item.raw.get("end"), item.raw["conversations"][0]["value"]


def _find_error(item: AnnotatedRecord, rivals: Sequence[AnnotatedRecord], is_class: bool) -> BadSample | None:
    place, answer = item.annotation.place, item.annotation.answer
    for other in rivals:
        if is_class and other.annotation.answer != answer:
            message = f"the answer is {answer!r}, but {other.annotation.answer!r} in {other.annotation.place}."
            return BadSample("contradiction", f"{place}: {message}")
    for other in rivals:
        if other is item:
            break
        if other.annotation.answer == answer:
            return BadSample("repeated", f"{place}: the same clip, question and answer as {other.annotation.place}.")
    return None
