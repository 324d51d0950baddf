from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.cards import cards_of
from omnihuman.evaluation.folder import open_evaluation
from omnihuman.evaluation.report import report_folder

Make = Callable[..., Path]
VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Fails where a tag is not closed; keeps tags with their attributes, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_states_and_order(make: Make) -> None:
    evaluation = open_evaluation(make(media=2))
    cards = cards_of(evaluation, [])
    assert [sum(card.state == state for card in cards) for state in ("right", "wrong", "invalid", "not asked")] == [
        11, 3, 1, 1,
    ]  # fmt: skip
    assert cards[0].pictures == {"frames": "media/0.jpg"} and cards[0].sound == "media/0.wav"
    assert cards[0].bars["gate"] == [("face", 0.7, "0.70"), ("body", 0.3, "0.30")]
    name, share, words = cards[0].bars["options"][0]
    assert (name, words) == ("sad", "90 % (-0.10)") and share == pytest.approx(0.900, abs=1e-3)
    assert len(cards_of(evaluation, [], most=5)) == 5


def test_kept_media_come_first(make: Make, sixteen: list[Prediction]) -> None:
    folder = make(predictions=sixteen)
    (folder / "media/7.jpg").write_bytes(b"x")
    sixteen[7] = replace(sixteen[7], meta={"card": {"frames": "media/7.jpg"}})
    (folder / "predictions.jsonl").write_text("".join(f"{one.line()}\n" for one in sixteen))
    assert cards_of(open_evaluation(folder), [], most=2)[0].id == "00007"


def test_files_elsewhere_are_not_linked(make: Make, sixteen: list[Prediction]) -> None:
    outside = {"frames": "../../../../../../etc/passwd", "faces": "javascript:alert(1)", "sound": "/etc/passwd"}
    sixteen[0] = replace(sixteen[0], meta={"card": outside})
    card = cards_of(open_evaluation(make(predictions=sixteen)), [])[0]
    assert card.pictures == {} and card.sound == ""


def test_the_page_parses_escapes_and_asks_nobody(make: Make) -> None:
    folder = make(media=1)
    report_folder(folder, resamples=50)
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert "<script>alert" not in text and "<script>alert(1)</script>" in page.words
    assert len(page.every("script")) == 1 and len(page.every("article")) == 16
    assert "http:" not in text and "https:" not in text and "//" not in text.replace("// browsers", "")
    assert [each["src"] for each in page.every("img")][-1] == "media/0.jpg"
    assert [each["src"] for each in page.every("audio")] == ["media/0.wav"]
    assert next(each["src"] for each in page.every("img")) == "confusion_pooled.png"
    for each in page.every("img") + page.every("audio"):
        assert (folder / str(each["src"])).is_file()
    states = [each["data-state"] for each in page.every("article")]
    assert states.count("wrong") == 3
    assert "secret.mp4, 0 to 2.5 s" in page.words and "16 questions, 1 invalid, 1 without media" in page.words


def test_hostile_names_are_escaped_everywhere(make: Make, sixteen: list[Prediction]) -> None:
    evil = "\"'><img src=x onerror=alert(1)>"
    sixteen[0] = replace(
        sixteen[0], id=evil, group=evil, prompt=evil, answer=evil, lacking=(evil,), before=((evil, evil),),
        options=(evil,), log_probs=(0.0,), weights={evil: {evil: 1.0}}, media={"file": evil},
    )  # fmt: skip
    folder = make(predictions=sixteen, run=evil)
    report_folder(folder, resamples=50)
    page = Page((folder / "index.html").read_text())
    assert [each for each in page.every("img") if each["src"] == "x"] == []
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert all((folder / str(each["src"]).replace("%20", " ")).is_file() for each in page.every("img"))


def test_a_baseline_stands_beside(make: Make, sixteen: list[Prediction]) -> None:
    other = [replace(one, answer="sad") for one in sixteen[1:]]
    first, second = make(), make("other", predictions=other, modality="V", run="base")
    cards = cards_of(open_evaluation(first), [], open_evaluation(second))
    assert (cards[0].other, cards[0].disagrees) == (None, False)
    assert (cards[1].other, cards[1].disagrees) == ("sad", False)
    assert (cards[3].other, cards[3].disagrees) == ("sad", True)
    report_folder(first, baseline=second, resamples=50)
    page = Page((first / "index.html").read_text())
    assert "disagrees with base, V" in page.words
    assert [each["data-disagrees"] for each in page.every("article")].count("1") == 10
    told = make("told", predictions=[Prediction("told", "1", "", "What?", "a", "b")], kind="Told")
    with pytest.raises(ValueError, match=r"answers told, .* toy; give an evaluation of the same benchmark"):
        report_folder(first, baseline=told, resamples=50)


def test_published_pages_hide_faces(make: Make) -> None:
    folder = make(media=3)
    report_folder(folder, publish=True, resamples=50)
    text = (folder / "public/index.html").read_text()
    page = Page(text)
    assert page.every("audio") == [] and "media/" not in text and "secret" not in text and "truncated" not in text
    assert all(str(each["src"]).startswith("confusion_") for each in page.every("img"))
    kept = {path.name for path in (folder / "public").iterdir()}
    assert kept >= {"index.html", "metrics.json", "table.md"} and not kept & {
        "media",
        "parsed.jsonl",
        "predictions.jsonl",
    }
    assert "00003" in page.words


def test_what_a_text_alone_got(make: Make) -> None:
    told = [Prediction("told", f"{n}", "", "What?", ["a", "b"], "x" * n) for n in (3, 5)]
    evaluation = open_evaluation(make(predictions=told, kind="Told"))
    cards = cards_of(evaluation, evaluation.benchmark.scores(evaluation.predictions))
    assert [card.notes for card in cards] == [{"length": "3"}, {"length": "5"}]
    assert (cards[0].truth, cards[0].state, cards[0].label) == ("a, b", "text", "")
