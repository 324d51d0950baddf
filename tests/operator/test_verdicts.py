"""The file of verdicts, changes of texts, and the agreement of two people."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnihuman.operator.verdicts import (
    Verdict,
    append_verdicts,
    apply_patch,
    conclude,
    count_people,
    edit_value,
    make_patch,
    read_verdicts,
    summarize,
    write_text,
)


def judge(reviewer: str, verdict: str, row: str = "row", **fields: Any) -> Verdict:
    return Verdict(f"{row}_key", row, reviewer, verdict, **fields)


@given(st.text("ab ,.\n", max_size=30), st.text("ab ,.\n", max_size=30))
def test_a_patch_makes_the_new_text(old: str, new: str) -> None:
    patch = json.loads(json.dumps(make_patch(old, new)))
    assert apply_patch(old, patch) == new and (patch == []) == (old == new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a b", "a c"),
        (["x", "y"], ["x"]),
        ([{"question": "Who?", "answer": "She."}], [{"question": "Who?", "answer": "He."}]),
    ],
)
def test_values_of_all_kinds_are_edited(old: Any, new: Any) -> None:
    assert edit_value(old, make_patch(write_text(old), write_text(new))) == new


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    first = judge("anna", "edit", edits={"text": [(0, 1, "é")]}, time="2026-11-28T11:00:00Z", seconds=2.5)
    append_verdicts(tmp_path / "a" / "b.jsonl", [first])
    append_verdicts(tmp_path / "a" / "b.jsonl", [judge("ben", "unsure")])
    assert read_verdicts(tmp_path / "a" / "b.jsonl") == ([first, judge("ben", "unsure")], [])
    assert read_verdicts(tmp_path / "none.jsonl") == ([], [])


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_line_that_a_kill_has_cut_is_passed_over(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "a.jsonl"
    append_verdicts(file, [judge("anna", "accept")])
    size = file.stat().st_size
    append_verdicts(file, [judge("ben", "reject", edits={"text": [(0, 1, "é")]})])
    file.write_bytes(file.read_bytes()[: size + cut])
    append_verdicts(file, [judge("cleo", "accept")])
    verdicts, problems = read_verdicts(file)
    assert [verdict.reviewer for verdict in verdicts] == ["anna", "cleo"]
    assert len(problems) == 1 and "line 2" in problems[0]


@pytest.mark.parametrize(
    "line", ["[]", "{}", '"a"', '{"key": 1, "id": "a", "reviewer": "b", "verdict": "accept", "edits": {}}']
)
def test_other_lines_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{line}\n")
    verdicts, problems = read_verdicts(tmp_path / "a.jsonl")
    assert verdicts == [] and "line 1" in problems[0]


@pytest.mark.parametrize(
    ("verdicts", "end"),
    [
        ("accept", "accepted"),
        ("accept edit", "edited"),
        ("reject reject", "rejected"),
        ("unsure", "unsure"),
        ("edit reject", "disputed"),
        ("unsure reject", "disputed"),
    ],
)
def test_verdicts_amount_to_one(verdicts: str, end: str) -> None:
    assert (
        conclude({str(number): judge(str(number), verdict) for number, verdict in enumerate(verdicts.split())}) == end
    )


def test_two_people_judge_a_share_of_the_rows() -> None:
    people = [count_people(f"row {number}", 0.1) for number in range(2000)]
    assert set(people) == {1, 2} and people.count(2) == pytest.approx(200, abs=50)
    assert {count_people("a", 0.0), count_people("a", 1.0)} == {1, 2}


def test_the_account_has_first_verdicts_and_the_last_content() -> None:
    verdicts = [
        judge("anna", "accept", "0"),
        judge("ben", "accept", "0"),
        judge("anna", "accept", "1"),
        judge("ben", "reject", "1"),
        judge("ben", "accept", "1", revised=True),
        judge("anna", "reject", "2"),
        judge("ben", "reject", "2"),
        judge("anna", "reject", "3"),
        judge("ben", "reject", "3"),
        Verdict("old", "4", "anna", "reject"),
        judge("anna", "edit", "4"),
    ]
    summary = summarize(verdicts)
    assert summary["rows"] == 5 and summary["judged_twice"] == 4 and summary["people"] == {"anna": 5, "ben": 4}
    assert [summary[end] for end in ("accepted", "edited", "rejected", "disputed")] == [2, 1, 2, 0]
    assert summary["kappa"] == pytest.approx(0.5)
    assert summarize(verdicts[:2])["kappa"] is None and summarize([])["rows"] == 0
