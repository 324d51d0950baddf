"""Records that occur twice."""

from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.source.annotation import AnnotatedRecord, Annotation
from omnihuman.source.repeats import mark_repeats


def build_item(row: int, answer: str, **fields: Any) -> AnnotatedRecord:
    raw = {"video": "a.mp4", "conversations": [{"value": "Who?"}, {"value": answer}]} | fields
    return AnnotatedRecord(Annotation(f"row {row}", answer), raw)


def list_reasons(items: list[AnnotatedRecord], *, is_class: bool = True) -> list[str | None]:
    return [item.error and item.error.reason for item in mark_repeats(items, is_class=is_class)]


def test_the_same_record_again_is_an_error_that_names_the_first() -> None:
    items = mark_repeats([build_item(2, "joy"), build_item(3, "joy"), build_item(4, "joy")], is_class=True)
    assert items[0].error is None
    assert [str(item.error) for item in items[1:]] == [
        f"row {row}: the same clip, question and answer as row 2." for row in (3, 4)
    ]


def test_other_clips_times_and_questions_are_no_repeats() -> None:
    question = [{"value": "Why?"}, {"value": "joy"}]
    rivals = [{"video": "b.mp4"}, {"start": 1.0}, {"end": 1.0}, {"conversations": question}, {"audio_track": "b.wav"}]
    items = [build_item(number, "joy", **fields) for number, fields in enumerate([{}, *rivals])]
    assert list_reasons(items) == [None] * 6


def test_another_label_contradicts_and_another_text_does_not() -> None:
    items = [build_item(2, "joy"), build_item(3, "anger"), build_item(4, "joy")]
    assert list_reasons(items) == ["contradiction"] * 3
    assert list_reasons(items, is_class=False) == [None, None, "repeated"]


def test_earlier_errors_stay_and_do_not_count() -> None:
    bad = AnnotatedRecord(Annotation("row 2", "joy"), error=BadSample("missing_file", "row 2: gone"))
    assert list_reasons([bad, build_item(3, "anger"), bad]) == ["missing_file", None, "missing_file"]
