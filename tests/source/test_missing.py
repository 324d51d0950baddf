"""Cures of missing files."""

import unicodedata
from pathlib import Path

import pytest

from omnihuman.data.record import BadSample
from omnihuman.source.annotation import AnnotatedRecord, Annotation
from omnihuman.source.missing import find_cure


def build_item(name: str, reason: str = "missing_file") -> AnnotatedRecord:
    return AnnotatedRecord(Annotation("row 2", files={"video": name}), error=BadSample(reason, "gone"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder ``set`` with a clip in ``clips``."""
    clips = tmp_path / "set" / "clips" / "day [1]"
    clips.mkdir(parents=True)
    for name in ("a.mp4", unicodedata.normalize("NFD", "für.mp4")):
        (clips / name).write_text("")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "below", "cure"),
    [
        ("day [1]/a.mp4", ".", "set root={root}/clips"),
        ("a.mp4", ".", "set root={root}/clips/day [1]"),
        ("clips/day [1]/a.mp4", "clips", "set root={root}"),
        ("day [1]/a", "clips", "video='{{column}}.mp4'"),
        ("{root}/clips/day [1]/a.mp4", "clips/day [1]/none", "set root={root}/clips/day [1] or a folder above"),
        ("clips/day [1]/für.mp4", ".", "NFD"),
    ],
)
def test_a_file_that_is_elsewhere_is_named(name: str, below: str, cure: str, root: Path) -> None:
    name, cure = name.format(root=root), cure.format(root=root)
    assert cure in find_cure([build_item("nowhere.mp4"), build_item(name)], root / below)


def test_without_a_file_of_the_name_there_is_no_cure(root: Path) -> None:
    assert find_cure([build_item("nowhere.mp4"), build_item("")], root) == ""
    assert find_cure([build_item("a.mp4", "unreadable")], root) == ""
