from itertools import chain, product
from pathlib import Path

import pytest

from omnihuman.metric.emotion import FORMS
from omnihuman.metric.open_vocabulary import (
    built_in_wheels,
    group_by_wheel,
    parse_labels,
    read_wheels,
    score_label_sets,
    score_on_wheels,
)


def test_label_sets_by_hand() -> None:
    references = [["Happy", "excited"], ["sad"], ["angry", "upset"]]
    answers = [["joyful", "glad", "calm"], [], ["mad"]]
    groups = [[["happy", "joyful", "glad"], ["excited"]], [], [["angry", "mad"], ["upset", "mad"]]]
    average, accuracy, recall = score_label_sets(["1", "2", "3"], references, answers, groups)
    # 1: {happy, excited} and {happy, calm}; 2: no answer; 3: "mad" is in two groups, the last is "upset"
    assert accuracy.numerators[:, 0].tolist() == [0.5, 0, 1]
    assert recall.numerators[:, 0].tolist() == [0.5, 0, 0.5]
    assert average.value == pytest.approx((accuracy.value + recall.value) / 2) == pytest.approx(100 * 2.5 / 6)
    assert average.combine == "mean"


def test_a_label_in_two_groups_takes_the_last() -> None:
    groups = [["a", "x"], ["b", "x"]]
    assert score_label_sets(["1"], [["b"]], [["x"]], [groups])[1].value == 100
    assert score_label_sets(["1"], [["a"]], [["x"]], [groups])[1].value == 0


def test_failed_groupings_are_missing() -> None:
    scores = score_label_sets(["1", "2"], [["a"], ["b"]], [["a"], ["c"]], [[["a"]], None])
    assert [(score.value, score.coverage, score.ids) for score in scores] == [(100, 0.5, ("1",))] * 3
    with pytest.raises(ValueError, match=r"\b2: .*no reference label"):
        score_label_sets(["1", "2"], [["a"], []], [["a"], ["c"]], [[], []])


def test_built_in_wheels_are_complete() -> None:
    wheels = built_in_wheels()
    assert len(wheels.levels) == 5
    num_sectors = [(len(set(inner.values())), len(set(outer.values()))) for inner, outer in wheels.levels.values()]
    assert num_sectors == [(8, 24), (6, 22), (4, 8), (6, 41), (4, 20)]
    words = set(chain.from_iterable(wheels.words.values()))
    for inner, outer in wheels.levels.values():
        assert set(inner) == set(outer) <= words and len(inner) > 100
    for label, wheel in product(FORMS, wheels.levels):
        assert label == "neutral" or wheels.sector(label, wheel, 1)
    assert not wheels.words.get("neutral")


def test_wheels_by_hand() -> None:
    references = [["happy", "worried", "neutral"], ["neutral"], ["angry"]]
    answers = [["joyful", "furious", "zzz"], ["happy"], []]
    inner, outer = score_on_wheels(["1", "2", "3"], references, answers)
    # 1: one of two on every wheel; 2: no reference is on a wheel, so it is excluded; 3: no answer.
    # worry and fury share a quadrant of russell and of geneva
    f = [0.25, 0.25, 0.5, 0.25, 0.5]
    assert inner.value == pytest.approx(100 * sum(f) / 5)
    assert inner.denominators.sum() == 2 * 5 * 2
    assert (inner.name, outer.name, inner.combine) == ("ew_level1", "ew_level2", "harmonic")
    assert inner.note == "wheels: ours; 6 of 9 labels are on them"
    assert score_on_wheels(["1"], [["sad"]], [["happy"]])[0].value == 0


def test_groups_by_wheel_are_a_partition() -> None:
    labels = ["sad", "Joyful", "happy", "sleepy", "drowsy", "odd", "sad"]
    assert group_by_wheel(labels) == [["drowsy", "sleepy"], ["happy", "joyful"], ["odd"], ["sad"]]
    assert group_by_wheel(labels) == group_by_wheel(labels[::-1])
    assert group_by_wheel(["angry", "worried"], "russell", 1) == [["angry", "worried"]]
    with pytest.raises(ValueError, match=r"wheel='wheel1'.*plutchik.* \(ours\)"):
        group_by_wheel(labels, "wheel1")


def write_official(folder: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")

    def write(name: str, rows: list[list[str | None]]) -> None:
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(folder / name)

    tree = [
        ["level1", "level2", "level3"],
        [" Mad ", "Hurt", "Jealous"],
        [None, "Angry", "Furious"],
        ["Sad", "Low", "Blue"],
    ]
    for number in range(1, 6):
        write(f"wheel{number}.xlsx", tree)
    head: list[str | None] = []
    for run in range(1, 9):
        head += [f"word_run{run}", f"synonym_run{run}"]
    furious: list[str | None] = ["Furious", "raging, Wild"] * 8
    blue: list[str | None] = ["blue", "down, wild"] * 8
    mad: list[str | None] = ["mad", "cross"] * 8
    write("synonym.xlsx", [head, furious, blue, mad])
    (folder / "format.csv").write_text(
        'name,format\nraging,"rage,raged"\nwild,wildly\ndown,downs\nblue,\ncross,crossly\n', encoding="utf-8"
    )


def test_read_official_wheels(tmp_path: Path) -> None:
    write_official(tmp_path)
    wheels = read_wheels(tmp_path)
    assert list(wheels.levels) == [f"wheel{n}" for n in range(1, 6)]
    assert [wheels.sector("rage", "wheel3", level) for level in (1, 2)] == ["mad", "angry"]
    assert wheels.words["wildly"] == ("blue", "furious")
    assert wheels.sector("wildly", "wheel1", 1) == "sad"  # the first in alphabetical order decides
    assert wheels.sector("crossly", "wheel1", 2) == "angry"  # the first of its sectors
    assert wheels.sector("furious", "wheel1", 1) is None  # no row of format.csv
    score = score_on_wheels(["1"], [["rage", "blue"]], [["crossly"]], wheels)[0]
    assert score.value == pytest.approx(100 * 2 / 3) and "official" in score.note
    assert group_by_wheel(["downs", "blue"], "wheel1", 1, wheels) == [["blue", "downs"]]


def test_a_missing_file_or_column_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wheel1\.xlsx: .*no such file"):
        read_wheels(tmp_path)
    write_official(tmp_path)
    (tmp_path / "format.csv").write_text("word,format\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"format\.csv: .*\['name'\].*missing"):
        read_wheels(tmp_path)


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("happy, surprised and sad", ["happy", "surprised", "sad"]),
        ('["Happy", "self-deprecating"]', ["happy", "self-deprecating"]),
        ("['happy', \"doesn't care\"]", ["happy", "doesn't care"]),
        ('{"labels": ["sad"]}', ["sad"]),
        ("[happy, sad]", ["happy", "sad"]),
        ("[]", []),
        ("", []),
        ("1. Happy\n2. Sad\n- happy", ["happy", "sad"]),
        ("The emotions are: happy; very sad.", ["happy", "sad"]),
        ("The emotional state is happy and he seems a bit relieved.", ["happy", "relieved"]),
        ("高兴、惊讶", ["高兴", "惊讶"]),
        ("He went out to the street with a friend of his", []),
    ],
)
def test_parse_labels(answer: str, labels: list[str]) -> None:
    assert parse_labels(answer) == labels
