from pathlib import Path

import pytest

from omnihuman.metric.open_vocabulary import (
    our_wheels,
    parse_labels,
    read_wheels,
    set_scores,
    wheel_groups,
    wheel_scores,
)


def test_set_scores_by_hand() -> None:
    truths = [["Happy", "excited"], ["sad"], ["angry", "upset"]]
    answers = [["joyful", "glad", "calm"], [], ["mad"]]
    groups = [[["happy", "joyful", "glad"], ["excited"]], [], [["angry", "mad"], ["upset", "mad"]]]
    average, accuracy, recall = set_scores(["1", "2", "3"], truths, answers, groups)
    # 1: {happy, excited} and {happy, calm}; 2: nothing answered; 3: "mad" is in two groups, the last is "upset"
    assert accuracy.numerators[:, 0].tolist() == [0.5, 0, 1]
    assert recall.numerators[:, 0].tolist() == [0.5, 0, 0.5]
    assert average.value == pytest.approx((accuracy.value + recall.value) / 2) == pytest.approx(100 * 2.5 / 6)
    assert average.combine == "mean"


def test_the_last_of_two_groups_counts() -> None:
    groups = [["a", "x"], ["b", "x"]]
    assert set_scores(["1"], [["b"]], [["x"]], [groups])[1].value == 100
    assert set_scores(["1"], [["a"]], [["x"]], [groups])[1].value == 0


def test_failed_groupings_are_missing() -> None:
    scores = set_scores(["1", "2"], [["a"], ["b"]], [["a"], ["c"]], [[["a"]], None])
    assert [(score.value, score.coverage, score.ids) for score in scores] == [(100, 0.5, ("1",))] * 3
    with pytest.raises(ValueError, match="2: the truth has no label"):
        set_scores(["1", "2"], [["a"], []], [["a"], ["c"]], [[], []])


def test_wheels_of_our_own_are_whole() -> None:
    wheels = our_wheels()
    assert len(wheels.levels) == 5
    shapes = [tuple(len(set(level.values())) for level in levels) for levels in wheels.levels.values()]
    assert shapes == [(8, 24), (6, 22), (4, 8), (6, 41), (4, 20)]
    words = {word for each in wheels.words.values() for word in each}
    for inner, outer in wheels.levels.values():
        assert set(inner) == set(outer) <= words and len(inner) > 100
    answers = [
        "happy",
        "surprise",
        "angry",
        "disgust",
        "sad",
        "fear",
        "contemptuous",
        "disappointed",
        "helpless",
        "anxious",
    ]
    assert all(wheels.sector(label, wheel, 1) for label in answers for wheel in wheels.levels)
    assert not wheels.words.get("neutral")


def test_wheel_scores_by_hand() -> None:
    truths = [["happy", "worried", "neutral"], ["neutral"], ["angry"]]
    answers = [["joyful", "furious", "zzz"], ["happy"], []]
    inner, outer = wheel_scores(["1", "2", "3"], truths, answers)
    # 1: one of two on every wheel; 2: no truth is left, so it does not count; 3: nothing answered.
    # worry and fury share a quadrant of russell's and of geneva
    f = [0.25, 0.25, 0.5, 0.25, 0.5]
    assert inner.value == pytest.approx(100 * sum(f) / 5)
    assert inner.denominators.sum() == 2 * 5 * 2
    assert (inner.name, outer.name, inner.combine) == ("ew_level1", "ew_level2", "harmonic")
    assert inner.note == "wheels: ours; 6 of 9 labels are on them"
    assert wheel_scores(["1"], [["sad"]], [["happy"]])[0].value == 0


def test_groups_of_a_wheel_are_a_partition() -> None:
    labels = ["sad", "Joyful", "happy", "sleepy", "drowsy", "odd", "sad"]
    assert wheel_groups(labels) == [["drowsy", "sleepy"], ["happy", "joyful"], ["odd"], ["sad"]]
    assert wheel_groups(labels) == wheel_groups(labels[::-1])
    assert wheel_groups(["angry", "worried"], "russell", 1) == [["angry", "worried"]]
    with pytest.raises(ValueError, match="'wheel1': the wheels \\(ours\\) are plutchik"):
        wheel_groups(labels, "wheel1")


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
    runs = range(1, 9)
    head = [f"{kind}_run{run}" for run in runs for kind in ("word", "synonym")]
    furious: list[str | None] = [cell for _ in runs for cell in ("Furious", "raging, Wild")]
    blue: list[str | None] = [cell for _ in runs for cell in ("blue", "down, wild")]
    mad: list[str | None] = [cell for _ in runs for cell in ("mad", "cross")]
    write("synonym.xlsx", [list(head), furious, blue, mad])
    (folder / "format.csv").write_text(
        'name,format\nraging,"rage,raged"\nwild,wildly\ndown,downs\nblue,\ncross,crossly\n', encoding="utf-8"
    )


def test_official_wheels(tmp_path: Path) -> None:
    write_official(tmp_path)
    wheels = read_wheels(tmp_path)
    assert list(wheels.levels) == [f"wheel{n}" for n in range(1, 6)]
    assert [wheels.sector("rage", "wheel3", level) for level in (1, 2)] == ["mad", "angry"]
    assert wheels.words["wildly"] == ("blue", "furious")
    assert wheels.sector("wildly", "wheel1", 1) == "sad"  # the first in the alphabet decides
    assert wheels.sector("crossly", "wheel1", 2) == "angry"  # the first of its sectors
    assert wheels.sector("furious", "wheel1", 1) is None  # no row of format.csv
    score = wheel_scores(["1"], [["rage", "blue"]], [["crossly"]], wheels)[0]
    assert score.value == pytest.approx(100 * 2 / 3) and "official" in score.note
    assert wheel_groups(["downs", "blue"], "wheel1", 1, wheels) == [["blue", "downs"]]


def test_official_wheels_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wheel1\.xlsx: there is no such file"):
        read_wheels(tmp_path)
    write_official(tmp_path)
    (tmp_path / "format.csv").write_text("word,format\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"format\.csv: the columns \['name'\] are missing"):
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
def test_labels_of_an_answer(answer: str, labels: list[str]) -> None:
    assert parse_labels(answer) == labels
