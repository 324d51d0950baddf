"""The report: what is bad, what occurs twice, what splits share, and the distributions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.record import BadSample, Record
from omnihuman.preflight.check import Content, Problem, Verdict
from omnihuman.preflight.summary import Item, Report, describe_lengths, summarize

SETTINGS = {"max_length": 100}


def build_item(name: str, split: str = "train", **options: Any) -> Item:
    """Return a usable record of the file of its name; other values by keyword."""
    options = {"file": f"{name}.mp4", "question": "Who?", "answer": "happy", "frames": name, "slots": ()} | options
    messages = (("user", options["question"]), ("assistant", options["answer"]))
    record = Record(
        options.get("id", name),
        Path(options["file"]),
        "video",
        messages,
        options["slots"],
        task=options.get("task"),
        location=f"{split}.json[{name}]",
        meta=options.get("meta", {}),
        start=options.get("start", 0.0),
    )
    content = Content(
        options["frames"], options.get("audio", ""), options.get("is_moving", True), 4, options.get("faces")
    )
    verdict = options.get("verdict", Verdict(lengths=(10,), seconds=2.0, content=content))
    return Item(split, f"{split}.json", record, verdict)


def build_report(*items: Item, person: str | None = None, **hashes: str) -> Report:
    return summarize(items, SETTINGS, {Path(f"{name}.mp4"): value for name, value in hashes.items()}, person)


def list_names(groups: list[list[dict[str, str]]]) -> list[list[str]]:
    names = list[list[str]]()
    for group in groups:
        names.append([member["name"] for member in group])
    return names


def test_bad_records_are_listed_by_reason_with_their_split() -> None:
    problem = Problem("b", "b.mp4", "truncated", "train.json[1] (b): cut")
    invalid = Item("val", "val.json", ("val.json[0]", BadSample("odd_turns", "x")), Verdict((problem,)))
    view = replace(problem, id="b#VF", is_view=True)
    report = build_report(build_item("a"), build_item("b", verdict=Verdict((problem, view))), invalid)
    assert [entry["split"] for entry in report.bad["truncated"]] == ["train", "train", "val"]
    assert report.bad["truncated"][0]["message"] == problem.message
    assert report.splits["train"]["bad"] == 1 and report.splits["train"]["records"] == 2
    assert any("train: 1 of 2 records" in line and "1 truncated" in line for line in report.problems)
    assert any(line == "val: no sample is left" for line in report.problems)


def test_a_clean_set_has_no_problem_and_no_note() -> None:
    report = build_report(build_item("a"), build_item("b", answer="sad"), build_item("c", "val"), person=None)
    assert not report.problems and report.complete
    assert [line.partition(":")[0] for line in report.notes] == ["people are not compared"]
    assert not any(report.duplicates.values()) and not any(report.shared.values())


def test_duplicates_of_each_kind() -> None:
    report = build_report(
        build_item("a"),
        build_item("b", id="a"),  # one id twice
        build_item("c", frames="c"),
        build_item("d", frames="c", question="Where?"),  # re-muxed
        build_item("e", frames="c", question="Where?"),  # re-muxed, and the same question
        build_item("f", start=1.0),
        build_item("g"),  # equal bytes, another span
        f="0",
        g="0",
    )
    assert list_names(report.duplicates["ids"]) == [["a", "a"]]
    assert list_names(report.duplicates["clips"]) == [["c.mp4", "d.mp4", "e.mp4"]]
    assert list_names(report.duplicates["records"]) == [["d", "e"]]
    assert list_names(report.duplicates["files"]) == [["f.mp4", "g.mp4"]]
    assert not report.problems


def test_several_questions_about_one_clip_are_no_duplicates() -> None:
    report = build_report(build_item("a"), build_item("b", file="a.mp4", frames="a", question="Where?"))
    assert not any(report.duplicates.values()) and report.splits["train"]["clips"] == 1


def test_frames_that_do_not_move_are_no_evidence() -> None:
    items = [build_item(name, frames="black", audio=name, is_moving=False) for name in "ab"]
    assert not build_report(*items).duplicates["clips"]
    items = [build_item(name, frames="black", audio="x", is_moving=False) for name in "ab"]
    assert len(build_report(*items).duplicates["clips"]) == 1


@pytest.mark.parametrize(
    ("kind", "options", "hashes"),
    [
        ("files", {"file": "a.mp4"}, {}),  # the same path, another span
        ("files", {}, {"a": "0", "b": "0"}),
        ("clips", {"frames": "a"}, {}),
    ],
)
def test_what_splits_share_is_a_problem(kind: str, options: dict[str, Any], hashes: dict[str, str]) -> None:
    report = build_report(build_item("a"), build_item("b", "val", **options), **hashes)
    (group,) = report.shared[kind]
    assert {member["split"] for member in group} == {"train", "val"}
    assert [line for line in report.problems if f"1 {kind} are shared by train and val" in line]


def test_people_are_compared_by_the_key() -> None:
    items = [
        build_item("a", meta={"speaker": "Ann"}),
        build_item("b", "val", meta={"speaker": ["Bob", "Ann"]}),
        build_item("c", "val", meta={"speaker": "Bob"}),
        build_item("d"),
    ]
    report = build_report(*items, person="speaker")
    assert list_names(report.shared["people"]) == [["Ann", "Ann"]]
    assert "person=speaker: 1 records do not have this key" in report.notes
    assert "person=name: no record has this key" in build_report(*items, person="name").problems


def test_labels_are_counted_and_free_text_is_not() -> None:
    items = [build_item(f"h{number}", task="emotion") for number in range(20)]
    items += [build_item("s", task="emotion", answer="sad")]
    items += [build_item(f"t{number}", task="caption", answer=f"text {number}") for number in range(3)]
    report = build_report(*items)
    labels = report.splits["train"]["labels"]
    assert labels["emotion"]["labels"] == {"happy": 20, "sad": 1} and labels["emotion"]["ratio"] == 20
    assert labels["caption"]["labels"] == {} and labels["caption"]["answers"] == 3
    assert any("task emotion" in line and "20 times" in line for line in report.notes)


def test_records_without_boxes_are_a_problem_only_if_none_has_them() -> None:
    def build(name: str, is_located: bool) -> Item:
        return build_item(name, verdict=Verdict(lengths=(1,), is_located=is_located, content=Content(name)))

    assert any("face@data.face=whole" in line for line in build_report(build("a", False)).problems)
    report = build_report(build("a", False), build("b", True))
    assert not report.problems and any("1 records have no boxes" in line for line in report.notes)


def test_audio_is_counted() -> None:
    def build(name: str, slots: tuple[str, ...], **verdict: Any) -> Item:
        return build_item(name, slots=slots, verdict=Verdict(lengths=(1,), **verdict))

    items = [
        build("a", ("audio",), content=Content(peak=0.5), has_audio=True),
        build("b", ("audio",), content=Content(peak=0.0), has_audio=True),
        build("c", ("video", "audio"), dropped=("audio",)),
        build("d", ("video",), has_audio=True),
    ]
    report = build_report(*items)
    assert report.splits["train"]["audio"] == {"named": 3, "missing": 1, "silent": 1, "unused": 1}
    assert sum("audio" in line for line in report.notes) == 3


def test_an_interrupted_check_says_so() -> None:
    item = build_item("b")
    report = build_report(build_item("a"), Item(item.split, item.source, item.entry))
    assert not report.complete and "1 of 2 records are not checked" in report.problems[0]
    assert report.splits["train"]["checked"] == 1


@pytest.mark.parametrize("lengths", [[], [5], [1, 1, 2, 1000], list(range(57))])
def test_a_histogram_has_every_length(lengths: list[int]) -> None:
    described = describe_lengths(lengths)
    assert sum(count for _, _, count in described["histogram"]) == len(lengths)
    for first, last, count in described["histogram"]:
        assert sum(first <= length <= last for length in lengths) == count
    if lengths:
        assert (described["min"], described["max"], described["total"]) == (min(lengths), max(lengths), sum(lengths))
