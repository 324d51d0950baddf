"""Rows wait for verdicts, and end by them."""

from pathlib import Path
from typing import Any

import pytest

from omnihuman.operator.base import Dropped, SetupError
from omnihuman.operator.review import Review
from omnihuman.operator.verdicts import Verdict, append_verdicts, find_file, make_patch
from tests.operator.conftest import apply_one, build_row

OPTIONS: dict[str, Any] = {"edit": {"reason": "text", "words": "texts"}, "show": {"label": "emotion"}, "faces": False}
VALUES = {"reason": "She smiles.", "words": ["glad"], "emotion": "happy"}


def apply(folder: Path, *verdicts: str, share: float = 0.0, row: Any = None, **edits: Any) -> Any:
    """Return the outcome of a row on which people give verdicts, the last one with edits."""
    row = row or build_row(folder / "a.mp4", **VALUES)
    operator = Review(**OPTIONS, share=share)
    key = operator.identify(row)
    for number, verdict in enumerate(verdicts):
        changes = edits if number == len(verdicts) - 1 else {}
        append_verdicts(find_file(folder, "review"), [Verdict(key, row["id"], f"p{number}", verdict, changes)])
    return apply_one(operator, folder / "07-review-abc", row)


def test_rows_without_a_verdict_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=rf"review out={tmp_path};.*review=skip"):
        apply(tmp_path)


def test_a_second_person_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"rows wait"):
        apply(tmp_path, "accept", share=1.0)
    assert apply(tmp_path, "accept", "accept", share=1.0)["review_verdict"] == "accepted"


def test_edits_are_new_columns(tmp_path: Path) -> None:
    patches = {"reason": make_patch("She smiles.", "She cries."), "words": make_patch('[\n "glad"\n]', '[\n "sad"\n]')}
    result = apply(tmp_path, "edit", **patches)
    assert result == {"review_verdict": "edited", "review_reason": "She cries.", "review_words": ["sad"]}


@pytest.mark.parametrize(("verdict", "why"), [("reject", "rejected"), ("unsure", "unsure")])
def test_the_others_are_dropped(tmp_path: Path, verdict: str, why: str) -> None:
    assert apply(tmp_path, verdict) == Dropped(why, f"p0: {verdict}")


def test_a_row_with_another_content_waits_again(tmp_path: Path) -> None:
    assert apply(tmp_path, "accept")["review_reason"] == "She smiles."
    with pytest.raises(SetupError):
        apply(tmp_path, row=build_row(tmp_path / "a.mp4", **{**VALUES, "emotion": "sad"}))


@pytest.mark.parametrize("options", [{"mode": "skip"}, {"subset": "hre"}])
def test_other_rows_pass(tmp_path: Path, options: dict[str, Any]) -> None:
    row = build_row(tmp_path / "a.mp4", **VALUES, subset=None)
    result = apply_one(Review(**OPTIONS, **options), tmp_path / "07-review-abc", row)
    assert result == {"review_verdict": None, "review_reason": "She smiles.", "review_words": ["glad"]}


@pytest.mark.parametrize(
    ("options", "message"), [({"share": 2}, "share=2"), ({"edit": {"a": "number"}}, r"edit\.a=number.*texts")]
)
def test_mistakes_name_the_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Review(**options)
