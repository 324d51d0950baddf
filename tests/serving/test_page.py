"""The handlers of the page, without a browser."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from omnihuman.inference.answerer import Answerer
from omnihuman.modality import View
from omnihuman.serving.conversation import Conversation, Turn
from omnihuman.serving.examples import Example
from omnihuman.serving.page import Page, PageOptions, read_style, render_text, render_turn
from omnihuman.serving.sessions import Sessions
from omnihuman.serving.uploads import Limits, Uploads

REQUEST = gr.Request(session_hash="me")


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.load(model_folder("humanomni_stage3"))


@pytest.fixture
def page(answerer: Answerer, tmp_path: Path) -> Page:
    (tmp_path / "uploads" / "1").mkdir(parents=True)
    sessions = Sessions(lambda: Conversation(answerer, Uploads(Limits())), tmp_path / "uploads")
    return Page(sessions, PageOptions("humanomni_stage3", "on cpu", answerer.view, max_new_tokens=4))


@pytest.fixture
def clip(corpus: Path, page: Page) -> Path:
    """An upload."""
    clip = sorted((corpus / "media").glob("train_talk*.mp4"))[0]
    return Path(shutil.copy(clip, page.sessions.folder / "1" / "a.mp4"))


def ask(page: Page, question: str, view: str = "VA") -> list[list[Any]]:
    """Ask a question and return all updates of the page."""
    return list(page.ask(question, view, None, None, None, None, REQUEST))


def test_upload_is_opened_under_its_name(page: Page, clip: Path) -> None:
    status, view, *media = page.open_upload("video", {"path": str(clip), "orig_name": "my <clip>.mp4"}, REQUEST)
    assert "my &lt;clip&gt;.mp4" in status and view.value == "VA" and media[1:] == [None, None]


def test_question_updates_the_page_until_the_answer_is_complete(page: Page, clip: Path) -> None:
    page.open_upload("video", {"path": str(clip)}, REQUEST)
    first, second, *_, last = ask(page, "Who?")
    assert 'class="question">Who?' in first[1] and first[3] == "" and first[5].visible
    assert "<img" in second[2] and "class=" not in str(second[0])
    past, text, inputs, _, go, stop = last
    assert past.count("<article") == 1 and past.count("data-weight") == 3 and (text, inputs) == ("", "")
    assert go.visible and not stop.visible
    assert ask(page, "And?")[-1][0].count("<article") == 2


def test_cleared_session_has_no_clip_and_no_file(page: Page, clip: Path) -> None:
    page.open_upload("video", {"path": str(clip)}, REQUEST)
    outputs = page.clear_session(REQUEST)
    assert "empty" in outputs[5] and outputs[2:5] == [None] * 3 and not clip.exists()
    assert "no clip" in ask(page, "Who?")[-1][0]


def test_invalid_upload_is_an_error_and_deleted(page: Page, clip: Path) -> None:
    clip.write_text("Dear model")
    status, view, *media = page.open_upload("video", {"path": str(clip), "orig_name": None}, REQUEST)
    assert 'role="alert"' in status and "a.mp4" in status and str(clip.parent) not in status
    assert view.value == "text" and media == [None] * 3 and not clip.exists()


def test_clip_is_removed_by_the_component_of_its_kind(page: Page, clip: Path) -> None:
    page.open_upload("video", {"path": str(clip)}, REQUEST)
    assert all(update.get("__type__") == "update" for update in page.remove_clip("image", REQUEST)) and clip.exists()
    assert page.remove_clip("video", REQUEST)[0] == "" and not clip.exists()
    page.open_upload("video", None, REQUEST)


def test_end_of_a_session_deletes_its_uploads(page: Page, clip: Path) -> None:
    page.sessions.use("me", clip)
    page.end_session(REQUEST)
    assert not clip.exists()


def test_example_is_opened_with_its_faces_and_not_deleted(page: Page, corpus: Path, tmp_path: Path) -> None:
    file = sorted((corpus / "media").glob("train_talk*.mp4"))[0]
    faces = [{"time": 0.0, "box": [1, 2, 30, 40]}]
    example = Example("video", file, tmp_path / "copy.mp4", "talk", "Who?", tmp_path / "a.jpg", faces)
    outputs = page.open_example(example, REQUEST)
    medium = page.sessions.get("me").medium
    assert medium is not None and medium.faces == faces and medium.file == file
    assert outputs[2:5] == [str(tmp_path / "copy.mp4"), None, None] and outputs[-1] == "Who?"
    assert "failure" not in ask(page, "Who?")[-1][0]
    page.clear_session(REQUEST)
    assert file.exists()


def _build_turn(**values: Any) -> Turn:
    turn = Turn("1 < 2?", View("VA"), None, "<script>", "<img>", "<i>", {"new tokens": "3"}, ("no audio.",))
    for name, value in values.items():
        setattr(turn, name, value)
    return turn


def test_complete_turn_is_escaped_and_has_text_before_inputs() -> None:
    html = render_turn(_build_turn(is_done=True))
    assert re.findall(r'<p class="(\w+)">([^<]*)', html) == [
        ("question", "1 &lt; 2?"),
        ("about", "frames + audio"),
        ("answer", "&lt;script&gt;"),
        ("note", "no audio."),
    ]
    assert html.index("<dt>new tokens</dt><dd>3</dd>") < html.index("<img>") < html.index("<i>")


def test_failed_turn_has_an_error_in_place_of_the_answer() -> None:
    html = render_turn(_build_turn(is_done=True, error="It is <cut>."))
    assert "&lt;script" not in html and "It is &lt;cut&gt;." in html and "turn failed" in html


def test_growing_answer_has_a_cursor() -> None:
    assert render_text(_build_turn()).count("<i></i>") == 1


def test_style_loads_nothing_from_elsewhere() -> None:
    assert "http" not in read_style() and "@import" not in read_style()


def test_the_empty_page_says_how_good_the_model_is(page: Page) -> None:
    options = replace(page.options, quality="WAR <5> on 224 questions.")
    assert "WAR &lt;5&gt; on 224" in Page(page.sessions, options)._render_empty()
    assert "quality" not in page._render_empty()
