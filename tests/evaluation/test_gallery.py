import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.build import compose_config
from omnihuman.evaluation.folder import load_evaluation
from omnihuman.evaluation.gallery import compare_answers, summarize, write_gallery
from omnihuman.report import find_gallery

from .test_cards import Page

Write = Callable[..., Path]


@pytest.fixture
def two(write_evaluation: Write, sixteen: list[Prediction]) -> list[Path]:
    """Two evaluations of the same questions; the second answers ``Sad`` to most, and asks the last in other words."""
    sad = [replace(prediction, answer="Sad" if number else "sad") for number, prediction in enumerate(sixteen)]
    sad[-1] = replace(sixteen[-1], prompt="How do they feel?")
    second = write_evaluation("runs/nano/base/evaluation/toy/V", predictions=sad, view="V", run="base", num_media=2)
    return [write_evaluation(), second]


def test_questions_whose_answers_differ_come_first(two: list[Path]) -> None:
    evaluations = [load_evaluation(folder) for folder in two]
    scores = [evaluation.benchmark.scores(evaluation.predictions) for evaluation in evaluations]
    comparisons = compare_answers(evaluations, scores)
    agreements = [comparison.agreement for comparison in comparisons]
    # "Sad" is no label of the toy, which compares exactly
    assert agreements == ["some right"] * 10 + ["wrong, not alike"] * 4 + ["all right", "wrong, alike"]
    assert comparisons[0].question.id == "00001" and set(comparisons[0].media) == {"frames", "audio"}
    assert [comparison.has_one_prompt for comparison in comparisons[-2:]] == [True, False]
    rows = summarize(evaluations, scores)
    assert [(row.name, row.score, row.num_right, row.num_alone) for row in rows] == [
        ("net, VA", "war 68.75", 11, 10),
        ("base, V", "war 6.25", 1, 0),
    ]


def test_the_page_is_one_file_that_loads_nothing(two: list[Path], tmp_path: Path) -> None:
    counts = write_gallery(tmp_path / "pages/gallery.html", two, max_cards=12)
    assert counts == {"some right": 10, "wrong, not alike": 4, "all right": 1, "wrong, alike": 1}
    text = (tmp_path / "pages/gallery.html").read_text()
    page = Page(text)
    assert "<script>alert" not in text and page.count("script") == 1
    sources = page.select("img", "src") + page.select("audio", "src")
    assert len(sources) == 2 and all(source.startswith("data:") for source in sources)
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert (page.count("article"), page.count("section")) == (12, 24)
    assert page.select("section", "class").count("right") == 10
    assert "wrong, not alike 4" in page.text and "first 12" in page.text and "secret.mp4" in page.text


def test_a_published_page_has_no_media_and_no_file_names(two: list[Path], tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery.html", two, publish=True)
    text = (tmp_path / "gallery.html").read_text()
    assert "data:" not in text and "secret" not in text and "truncated" not in text


def test_free_text_is_ordered_by_the_spread_of_its_scores(write_evaluation: Write) -> None:
    folders = []
    for name, lengths in {"a": (1, 1, 2), "b": (1, 2, 5)}.items():
        predictions = []
        for number, length in enumerate(lengths):
            predictions.append(Prediction("free_text", str(number), "", "What?", "a man", "x" * length))
        folders.append(write_evaluation(name, predictions=predictions, benchmark="FreeText", run=name))
    evaluations = [load_evaluation(folder) for folder in folders]
    scores = [evaluation.benchmark.scores(evaluation.predictions) for evaluation in evaluations]
    comparisons = compare_answers(evaluations, scores)
    assert [(entry.question.id, entry.agreement) for entry in comparisons] == [
        ("2", "not alike"),
        ("1", "not alike"),
        ("0", "alike"),
    ]
    assert comparisons[0].cards[1].notes == {"length": "5"}
    assert summarize(evaluations, scores)[0].num_right is None


def test_other_questions_are_refused(two: list[Path], write_evaluation: Write, sixteen: list[Prediction]) -> None:
    file = two[0] / "gallery.html"
    texts = [Prediction("free_text", "1", "", "What?", "a", "b")]
    for folder, predictions, benchmark, message in (
        ("text", texts, "FreeText", "free_text"),
        ("few", sixteen[:3], "Toy", "16, .*few has 3.* 3 are in both"),
        ("part", sixteen[:3], "Toy", r"part has 3 \(unfinished"),
        ("other", [replace(sixteen[0], reference="happy"), *sixteen[1:]], "Toy", "00000 .*other"),
    ):
        other = write_evaluation(folder, predictions=predictions, benchmark=benchmark, has_manifest=folder != "part")
        with pytest.raises(ValueError, match=f"^gallery: .*{message}"):
            write_gallery(file, [two[0], other])
    with pytest.raises(ValueError, match=r"gallery=\[.* two different"):
        write_gallery(file, [two[0], two[0]])
    assert not file.exists()


def test_equal_names_are_told_apart(write_evaluation: Write) -> None:
    folders = [write_evaluation("a", size="nano"), write_evaluation("b", size="7b")]
    evaluations = [load_evaluation(folder) for folder in folders]
    assert [row.name for row in summarize(evaluations, [[], []])] == ["net, VA (nano)", "net, VA (7b)"]
    evaluations[1] = replace(evaluations[1], config=evaluations[0].config)
    assert summarize(evaluations, [[], []])[1].name == f"net, VA: {folders[1]}"


def test_a_run_stands_for_its_evaluations(two: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose_config([f"gallery=[net,{two[1]}]"], "report")
    assert [folder.resolve() for folder in find_gallery(config)] == two
