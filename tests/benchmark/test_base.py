"""Predictions survive their file; what is no prediction is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import MODALITIES, Prediction, Question, check_switches, lines_of, read_json, unique
from omnihuman.data.record import MODALS, Record

ASKED = Prediction(
    "dfew",
    "00001",
    "fold_1",
    "Who?",
    "sad",
    "schön",
    ("sad", "happy"),
    {"n": 1},
    before=(("a", "b"),),
    log_probs=(-0.1, -2.0),
    lacking=("audio",),
    weights={"gate": {"face": 0.5}},
    tokens=(7, 1),
)


def test_a_line_is_the_prediction() -> None:
    line = ASKED.line()
    assert "\n" not in line and "schön" in line
    assert Prediction.of(json.loads(line), "here") == ASKED


BAD: dict[str, Any] = {
    "no object": ([1], "no object"),
    "a key too many": ({**json.loads(ASKED.line()), "mood": 1}, r"missing or unknown: \['mood'\]"),
    "no truth": ({"benchmark": "", "id": "1", "group": "", "prompt": "", "answer": ""}, r"\['truth'\]"),
    "options are no list": ({**json.loads(ASKED.line()), "options": None}, "not a prediction"),
    "half a turn": ({**json.loads(ASKED.line()), "before": [["a"]]}, "not a prediction"),
    "an id that is a number": ({**json.loads(ASKED.line()), "id": 1}, "id and answer are text, found 1"),
    "a group that is a number": ({**json.loads(ASKED.line()), "group": 1}, "group is text, found 1"),
    "no object of facts": ({**json.loads(ASKED.line()), "meta": None}, "meta is an object, found None"),
    "a probability of words": ({**json.loads(ASKED.line()), "log_probs": [None]}, "not a prediction"),
    "an answer that is a list": ({**json.loads(ASKED.line()), "answer": ["sad"]}, "id and answer are text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_prediction_is_named(name: str) -> None:
    raw, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        Prediction.of(raw, "predictions.jsonl:3")
    assert "predictions.jsonl:3" in str(caught.value)


def test_ids_are_unique() -> None:
    def asked(name: str, source: str) -> Question:
        return Question(Record(name, Path("a.mp4"), "video", (), (), source=source), "sad")

    assert len(unique([asked("1", "a:1"), asked("2", "a:2")], "a")) == 2
    with pytest.raises(ValueError, match=r"set: the id '1' is there twice \(a:1 and a:3\); keep one"):
        unique([asked("1", "a:1"), asked("2", "a:2"), asked("1", "a:3")], "set")
    with pytest.raises(ValueError, match=r"set: there is nothing to ask"):
        unique([], "set")


def test_every_modality_is_a_view() -> None:
    assert set(MODALITIES.values()) <= set(MODALS)
    record = Record("1", Path("a.mp4"), "video", (("user", "<video>\n<audio>\nWho?"), ("assistant", "")),
                    ("video", "audio"))  # fmt: skip
    forms = {letters: record.seen_as(view) for letters, view in MODALITIES.items()}
    assert all(form is not None for form in forms.values())
    assert len({(form.slots, form.hides) for form in forms.values() if form}) == 7, "no two are the same"
    for letters, form in forms.items():
        assert form is not None
        assert ("audio" in form.slots) == ("A" in letters)
        assert ("faces" in form.hides, "frames" in form.hides) == (
            "V" in letters and "F" not in letters, "F" in letters and "V" not in letters
        )  # fmt: skip


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{oops}")
    with pytest.raises(ValueError, match=r"a\.json: this is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b\.json: there is no such file"):
        read_json(tmp_path / "b.json")


def test_files_as_windows_saves_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n  \r\ntwo\r\n")
    assert list(lines_of(tmp_path / "a.txt")) == [(f"{tmp_path}/a.txt:1", "one"), (f"{tmp_path}/a.txt:3", "two")]
    (tmp_path / "a.txt").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=r"a\.txt: save the file as UTF-8"):
        list(lines_of(tmp_path / "a.txt"))


def test_an_unknown_switch_is_named() -> None:
    check_switches(order=("official", ("official", "other")))
    with pytest.raises(ValueError, match="order=mine: choose from official, other"):
        check_switches(parser=("strict", ("strict",)), order=("mine", ("official", "other")))
