from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.cards import build_cards
from omnihuman.evaluation.folder import load_evaluation
from omnihuman.evaluation.metrics import Bootstrap
from omnihuman.evaluation.report import report_folder

Write = Callable[..., Path]
VOID_TAGS = {"meta", "img", "input", "link", "br"}
FEW = Bootstrap(resamples=50)


class Page(HTMLParser):
    """Collects tags with their attributes and the text outside scripts; fails where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return len(self.select(tag))

    def select(self, tag: str, attribute: str = "") -> list[str]:
        """Return the values of an attribute of all tags of a kind."""
        return [str(attributes.get(attribute)) for name, attributes in self.tags if name == tag]


def read_page(folder: Path) -> Page:
    return Page((folder / "index.html").read_text())


def test_cards_have_states_media_and_bars(write_evaluation: Write) -> None:
    evaluation = load_evaluation(write_evaluation(num_media=2))
    cards = build_cards(evaluation, [])
    states = [card.state for card in cards]
    assert [states.count(state) for state in ("right", "wrong", "invalid", "unanswered")] == [11, 3, 1, 1]
    assert cards[0].images == {"frames": "media/0.jpg"} and cards[0].audio == "media/0.wav"
    assert cards[0].bars["gate"] == [("face", 0.7, "0.70"), ("body", 0.3, "0.30")]
    name, share, text = cards[0].bars["options"][0]
    assert (name, text) == ("sad", "90 % (-0.10)") and share == pytest.approx(0.900, abs=1e-3)
    assert len(build_cards(evaluation, [], max_cards=5)) == 5


def test_cards_with_thumbnails_come_first(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    sixteen[7] = replace(sixteen[7], meta={"card": {"frames": "media/7.jpg"}})
    folder = write_evaluation(predictions=sixteen)
    (folder / "media/7.jpg").write_bytes(b"x")
    assert build_cards(load_evaluation(folder), [], max_cards=2)[0].id == "00007"


def test_files_outside_the_folder_are_not_linked(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    outside = {"frames": "../../../../../../etc/passwd", "faces": "javascript:alert(1)", "audio": "/etc/passwd"}
    sixteen[0] = replace(sixteen[0], meta={"card": outside})
    card = build_cards(load_evaluation(write_evaluation(predictions=sixteen)), [])[0]
    assert card.images == {} and card.audio == ""


def test_the_page_is_valid_and_loads_only_local_files(write_evaluation: Write) -> None:
    folder = write_evaluation(num_media=1)
    report_folder(folder, bootstrap=FEW)
    text, page = (folder / "index.html").read_text(), read_page(folder)
    assert "http:" not in text and "https:" not in text and "//" not in text.replace("// browsers", "")
    images, audio = page.select("img", "src"), page.select("audio", "src")
    assert (images[0], images[-1]) == ("confusion_pooled.png", "media/0.jpg")
    assert audio == ["media/0.wav"]
    assert all((folder / source).is_file() for source in images + audio)


def test_the_page_escapes_answers_and_counts_states(write_evaluation: Write) -> None:
    folder = write_evaluation()
    report_folder(folder, bootstrap=FEW)
    page = read_page(folder)
    assert "<script>alert" not in (folder / "index.html").read_text() and "<script>alert(1)</script>" in page.text
    assert page.count("script") == 1 and page.count("article") == 16
    assert page.select("article", "data-state").count("wrong") == 3
    assert "secret.mp4, 0 to 2.5 s" in page.text and "16 questions, 1 invalid, 1 without media" in page.text


def test_hostile_names_are_escaped_everywhere(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    evil = "\"'><img src=x onerror=alert(1)>"
    sixteen[0] = replace(
        sixteen[0],
        id=evil,
        group=evil,
        prompt=evil,
        answer=evil,
        missing_slots=(evil,),
        previous_turns=((evil, evil),),
        options=(evil,),
        log_probs=(0.0,),
        weights={evil: {evil: 1.0}},
        media={"file": evil},
    )
    folder = write_evaluation(predictions=sixteen, run=evil)
    report_folder(folder, bootstrap=FEW)
    page = read_page(folder)
    images = page.select("img", "src")
    assert "x" not in images
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert all((folder / source.replace("%20", " ")).is_file() for source in images)


def test_cards_show_the_answers_of_a_baseline(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    other = [replace(prediction, answer="sad") for prediction in sixteen[1:]]
    first = write_evaluation()
    second = write_evaluation("other", predictions=other, view="V", run="base")
    cards = build_cards(load_evaluation(first), [], load_evaluation(second))
    assert (cards[0].baseline_answer, cards[0].disagrees) == (None, False)
    assert (cards[1].baseline_answer, cards[1].disagrees) == ("sad", False)
    assert (cards[3].baseline_answer, cards[3].disagrees) == ("sad", True)
    report_folder(first, baseline=second, bootstrap=FEW)
    page = read_page(first)
    assert "disagrees with base, V" in page.text
    assert page.select("article", "data-disagrees").count("1") == 10


def test_a_baseline_of_another_benchmark_raises(write_evaluation: Write) -> None:
    predictions = [Prediction("free_text", "1", "", "What?", "a", "b")]
    other = write_evaluation("other", predictions=predictions, benchmark="FreeText")
    with pytest.raises(ValueError, match=r"baseline: .*free_text; .*\btoy\b"):
        report_folder(write_evaluation(), baseline=other, bootstrap=FEW)


def test_published_pages_have_no_media_and_no_file_names(write_evaluation: Write) -> None:
    folder = write_evaluation(num_media=3)
    report_folder(folder, publish=True, bootstrap=FEW)
    text, page = (folder / "public/index.html").read_text(), read_page(folder / "public")
    assert page.count("audio") == 0 and "media/" not in text and "secret" not in text and "truncated" not in text
    assert all(source.startswith("confusion_") for source in page.select("img", "src"))
    files = {path.name for path in (folder / "public").iterdir()}
    assert files >= {"index.html", "metrics.json", "table.md"}
    assert not files & {"media", "parsed.jsonl", "predictions.jsonl"}
    assert "00003" in page.text


def test_cards_of_free_text_show_scores_of_single_answers(write_evaluation: Write) -> None:
    predictions = [Prediction("free_text", f"{n}", "", "What?", ["a", "b"], "x" * n) for n in (3, 5)]
    evaluation = load_evaluation(write_evaluation(predictions=predictions, benchmark="FreeText"))
    cards = build_cards(evaluation, evaluation.benchmark.scores(evaluation.predictions))
    assert [card.notes for card in cards] == [{"length": "3"}, {"length": "5"}]
    assert (cards[0].reference, cards[0].state, cards[0].label) == ("a, b", "text", "")
