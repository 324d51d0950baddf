"""Options of records, and the labels of a task."""

from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.options import find_labels, read_options
from omnihuman.data.record import BadSample, Record


def build_record(**meta: Any) -> Record:
    return Record("1", Path("a.mp4"), "video", (), (), location="a.json[0]", meta=meta)


def test_options_are_in_meta() -> None:
    assert read_options(build_record(meta={"options": ["sad", "happy"]})) == ("sad", "happy")
    assert read_options(build_record(meta={"person": 1})) == () == read_options(build_record())


@pytest.mark.parametrize("options", ["sad", ["sad"], ["sad", 1], ["sad", " "], ["sad", "Sad "]])
def test_invalid_options_raise(options: Any) -> None:
    with pytest.raises(BadSample, match=r"a\.json\[0\]: meta\.options .*sad"):
        read_options(build_record(meta={"options": options}))


def test_labels_are_options_of_all_records() -> None:
    assert find_labels([["b", "a"], ["a", "b"]]) == ("b", "a")
    assert find_labels([["b", "a"], ["a"]]) == find_labels([["a", "b"], []]) == find_labels([]) == ()
