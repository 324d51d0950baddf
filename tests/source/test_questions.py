"""Wordings of questions and their options."""

from pathlib import Path

import pytest

from omnihuman.build import config_dir
from omnihuman.source.questions import Questions, load_questions, write_question

OPTIONS = ["a", "b", "c", "d", "e"]


def test_a_key_decides_and_the_answer_is_always_offered() -> None:
    questions = Questions(("Which?", "What?"), min_options=2, max_options=4)
    results = [questions.draw(OPTIONS, "c", f"0/{number}") for number in range(60)]
    assert results == [questions.draw(OPTIONS, "c", f"0/{number}") for number in range(60)]
    assert {text for text, _ in results} == {"Which?", "What?"}
    assert {len(options) for _, options in results} == {2, 3, 4}
    assert all("c" in options and len(set(options)) == len(options) for _, options in results)
    assert {options.index("c") for _, options in results} == {0, 1, 2, 3}


def test_without_limits_all_options_are_in_some_order() -> None:
    orders = [Questions(("Which?",)).draw(OPTIONS, "a", str(number))[1] for number in range(9)]
    assert all(sorted(order) == OPTIONS for order in orders) and len(set(map(tuple, orders))) > 3
    assert Questions(("Who?",), 2, 3).draw([], "Ann", "0") == ("Who?", [])
    assert len(Questions(("Which?",), min_options=9).draw(OPTIONS, "a", "0")[1]) == 5


def test_tags_precede_a_text_without_tags() -> None:
    assert write_question(["<video>", "<audio>"], "Who?", ["a", "b"]) == "<video>\n<audio>\nWho?\na ,b"
    assert write_question(["<video>"], "In <video>, who?", []) == "In <video>, who?"


@pytest.mark.parametrize("path", sorted(Path(config_dir(), "wording").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_list_has_different_wordings_and_its_origin(path: Path) -> None:
    questions = load_questions(path.stem)
    assert len(set(questions.texts)) == len(questions.texts) >= 3
    assert "ours" in path.read_text() or "benchmark=" in path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("texts: []", r"mine\.yaml: texts .*\[\]"),
        ("texts: [1]", r"mine\.yaml: texts"),
        ("text: [Which one]", r"mine\.yaml: .*texts, min_options, max_options"),
        ("[Which one]", r"mine\.yaml: .*texts"),
        ("texts: [Which one]\nmin_options: 5\nmax_options: 3", r"mine\.yaml: min_options .*\[5, 3\]"),
        ("texts: [Which one]\nmin_options: 1", r"mine\.yaml: min_options"),
        ("texts: [", r"questions=.*mine\.yaml "),
    ],
)
def test_an_invalid_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_questions(str(tmp_path / "mine.yaml"))


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"questions=moods: .*emotion, .*\.yaml"):
        load_questions("moods")
