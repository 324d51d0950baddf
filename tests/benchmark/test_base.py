"""Predictions, files and options of benchmarks."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark import base
from omnihuman.benchmark.base import (
    Prediction,
    PublishedResult,
    Question,
    check_choices,
    check_unique_ids,
    read_peers,
)
from omnihuman.data.record import Record
from omnihuman.modality import View

PEERS = Path(base.__file__).parent / "peers"

PREDICTION = Prediction(
    "dfew",
    "00001",
    "fold_1",
    "Who?",
    "sad",
    "schön",
    ("sad", "happy"),
    {"n": 1},
    previous_turns=(("a", "b"),),
    log_probs=(-0.1, -2.0),
    missing_slots=("audio",),
    weights={"gate": {"face": 0.5}},
    tokens=(7, 1),
)


def test_json_round_trip() -> None:
    line = PREDICTION.to_json()
    assert "\n" not in line and "schön" in line
    assert Prediction.from_json(json.loads(line), "predictions.jsonl:1") == PREDICTION


def test_an_empty_cell_of_a_peer_is_no_score() -> None:
    result = next(result for result in read_peers("librispeech") if result.method == "SenseVoice-L")
    values = {"wer/test-clean": 2.5, "wer/test-other": 4.2}
    assert result == PublishedResult(
        "SenseVoice-L", values, "A", "prompt and normalizer not stated", "HumanOmni, table 5"
    )


@pytest.mark.parametrize("file", sorted(PEERS.glob("*.csv")), ids=lambda file: file.stem)
def test_peers_belong_to_a_benchmark_and_have_scores(file: Path) -> None:
    assert (PEERS.parent / f"{file.stem}.py").is_file()
    with file.open(encoding="utf-8", newline="") as lines:
        header, *rows = csv.reader(lines, strict=True)
    assert header[:4] == ["method", "view", "protocol", "source"]
    assert rows and all(len(row) == len(header) for row in rows)
    for result in read_peers(file.stem):
        assert result.method and result.values and result.source
        assert result.view == "" or str(View(result.view)) == result.view


BAD: dict[str, Any] = {
    "not an object": ([1], "not an object"),
    "an unknown key": ({**json.loads(PREDICTION.to_json()), "mood": 1}, r"missing or unknown: \['mood'\]"),
    "a missing reference": ({"benchmark": "", "id": "1", "group": "", "prompt": "", "answer": ""}, r"\['reference'\]"),
    "options that are not a list": ({**json.loads(PREDICTION.to_json()), "options": None}, "not a prediction"),
    "an incomplete turn": ({**json.loads(PREDICTION.to_json()), "previous_turns": [["a"]]}, "not a prediction"),
    "an id that is a number": ({**json.loads(PREDICTION.to_json()), "id": 1}, r"\bid\b.*text, got 1"),
    "a group that is a number": ({**json.loads(PREDICTION.to_json()), "group": 1}, r"group.*text, got 1"),
    "meta that is not an object": (
        {**json.loads(PREDICTION.to_json()), "meta": None},
        r"meta.*object, got None",
    ),
    "a log-probability that is not a number": (
        {**json.loads(PREDICTION.to_json()), "log_probs": [None]},
        "not a prediction",
    ),
    "an answer that is a list": ({**json.loads(PREDICTION.to_json()), "answer": ["sad"]}, r"answer.*text"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_prediction_raises(name: str) -> None:
    raw, message = BAD[name]
    with pytest.raises(ValueError, match=message) as raised:
        Prediction.from_json(raw, "predictions.jsonl:3")
    assert "predictions.jsonl:3" in str(raised.value)


def test_duplicate_ids_raise() -> None:
    def build_question(name: str, source: str) -> Question:
        return Question(Record(name, Path("a.mp4"), "video", (), (), location=source), "sad")

    assert len(check_unique_ids([build_question("1", "a:1"), build_question("2", "a:2")], "a")) == 2
    with pytest.raises(ValueError, match=r"set: .*'1'.*duplicated.*a:1.*a:3"):
        check_unique_ids([build_question("1", "a:1"), build_question("2", "a:2"), build_question("1", "a:3")], "set")
    with pytest.raises(ValueError, match=r"set: .*no questions"):
        check_unique_ids([], "set")


def test_every_view_gives_another_record() -> None:
    messages = (("user", "<video>\n<audio>\nWho?"), ("assistant", ""))
    record = Record("1", Path("a.mp4"), "video", messages, ("video", "audio"))
    restricted = {str(view): record.restrict(view) for view in View("VAF").subviews() if view}
    results = {(viewed.slots, viewed.hidden) for viewed in restricted.values() if viewed is not None}
    assert len(results) == len(restricted) == 7
    for letters, viewed in restricted.items():
        assert viewed is not None
        assert ("audio" in viewed.slots) == ("A" in letters)
        assert ("faces" in viewed.hidden) == ("V" in letters and "F" not in letters)
        assert ("frames" in viewed.hidden) == ("F" in letters and "V" not in letters)


def test_an_unknown_choice_raises() -> None:
    check_choices(order=("official", ("official", "other")))
    with pytest.raises(ValueError, match=r"order=mine: .*\bofficial, other\b"):
        check_choices(parser=("strict", ("strict",)), order=("mine", ("official", "other")))
