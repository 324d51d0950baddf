"""What the page does, without a browser."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from omegaconf import OmegaConf

from omnihuman.evaluation.answerer import Answerer
from omnihuman.serving.conversation import Conversation, Turn
from omnihuman.serving.desk import application
from omnihuman.serving.examples import Example
from omnihuman.serving.guard import Guard
from omnihuman.serving.page import Front, Page, card, said, style
from omnihuman.serving.sessions import Sessions
from omnihuman.serving.uploads import Limits, Uploads

ME = gr.Request(session_hash="me")


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.of_run(model_folder("humanomni_stage3"))


@pytest.fixture
def page(answerer: Answerer, tmp_path: Path) -> Page:
    (tmp_path / "uploads" / "1").mkdir(parents=True)
    sessions = Sessions(lambda: Conversation(answerer, Uploads(Limits())), tmp_path / "uploads")
    return Page(sessions, Front("humanomni_stage3", "on cpu", answerer.senses, max_new_tokens=4))


@pytest.fixture
def clip(corpus: Path, page: Page) -> Path:
    return Path(
        shutil.copy(sorted((corpus / "media").glob("train_talk*.mp4"))[0], page.sessions.folder / "1" / "a.mp4")
    )


def ask(page: Page, question: str, modal: str = "video_audio") -> list[list[Any]]:
    return list(page.ask(question, modal, None, None, None, None, ME))


def test_a_clip_is_placed_asked_about_and_forgotten(page: Page, clip: Path) -> None:
    placed = page.place("video", {"path": str(clip), "orig_name": "my <clip>.mp4"}, ME)
    assert "my &lt;clip&gt;.mp4" in placed[0] and placed[1].value == "video_audio" and placed[3:] == [None, None]
    looks = ask(page, "Who?")
    assert 'class="question">Who?' in looks[0][1] and looks[0][3] == "" and looks[0][5].visible
    assert "<img" in looks[1][2] and "class=" not in str(looks[1][0])
    past, now, pictured, _, go, stop = looks[-1]
    assert past.count("<article") == 1 and past.count("data-weight") == 3 and (now, pictured) == ("", "")
    assert go.visible and not stop.visible
    assert ask(page, "And?")[-1][0].count("<article") == 2
    gone = page.forget(ME)
    assert "empty" in gone[5] and gone[2:5] == [None] * 3 and not clip.exists()
    assert "no clip" in ask(page, "Who?")[-1][0]


def test_what_is_no_clip_is_deleted_and_said(page: Page, clip: Path) -> None:
    clip.write_text("Dear model")
    said_, modal, *media = page.place("video", {"path": str(clip), "orig_name": None}, ME)
    assert 'role="alert"' in said_ and "a.mp4" in said_ and str(clip.parent) not in said_
    assert modal.value == "text" and media == [None] * 3 and not clip.exists()


def test_a_clip_goes_with_its_own_cross_and_with_its_reader(page: Page, clip: Path) -> None:
    page.place("video", {"path": str(clip)}, ME)
    assert all(one.get("__type__") == "update" for one in page.take_away("image", ME)) and clip.exists()
    assert page.take_away("video", ME)[0] == "" and not clip.exists()
    page.place("video", None, ME)
    shutil.copy(__file__, clip.parent.parent / "other.mp4")
    page.sessions.hold("me", clip.parent.parent / "other.mp4")
    page.leave(ME)
    assert not (clip.parent.parent / "other.mp4").exists()


def test_an_example_is_asked_about_with_its_faces(page: Page, corpus: Path, tmp_path: Path) -> None:
    file = sorted((corpus / "media").glob("train_talk*.mp4"))[0]
    faces = [{"time": 0.0, "box": [1, 2, 30, 40]}]
    placed = page.example(Example("video", file, tmp_path / "shown.mp4", "talk", "Who?", tmp_path / "a.jpg", faces), ME)
    medium = page.sessions.of("me").medium
    assert medium is not None and medium.faces == faces and medium.file == file
    assert placed[2:5] == [str(tmp_path / "shown.mp4"), None, None] and placed[-1] == "Who?"
    assert "failure" not in ask(page, "Who?")[-1][0]
    page.forget(ME)
    assert file.exists()


def test_a_turn_is_words_beside_pictures() -> None:
    turn = Turn(
        "1 < 2?", "video_audio", None, "<script>", "<img>", "<i>", {"new tokens": "3"}, ("no sound.",), done=True
    )
    made = card(turn)
    assert re.findall(r'<p class="(\w+)">([^<]*)', made) == [
        ("question", "1 &lt; 2?"), ("about", "video + audio"), ("answer", "&lt;script&gt;"), ("note", "no sound."),
    ]  # fmt: skip
    assert made.index("<dt>new tokens</dt><dd>3</dd>") < made.index("<img>") < made.index("<i>")
    turn.error = "It is <cut>."
    assert "&lt;script" not in said(turn) and "It is &lt;cut&gt;." in said(turn) and "turn failed" in card(turn)
    assert said(Turn("a", "text", None)).count("<i></i>") == 1  # more will come


def test_the_page_asks_nobody_else_and_hides_what_is_no_part_of_it(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # and back again
    config = OmegaConf.load("conf/chat.yaml")
    config.examples = None
    served = application(answerer, config, tmp_path)
    assert isinstance(served, Guard) and served.local and served.uploads == tmp_path / "uploads"
    inner: Any = served.inner
    blocks = inner.routes[-1].app.get_blocks()
    assert blocks.has_launched and not blocks.analytics_enabled and not blocks.footer_links and not blocks.show_error
    assert blocks.max_file_size == config.max_upload * 2**20 == served.largest
    assert not [
        one
        for one in blocks.config["dependencies"]
        if one["api_visibility"] == "public" and one["targets"][0][1] != "unload"
    ]
    assert "http" not in style() and "@import" not in style() and "fonts.g" not in blocks.theme_css
    config.host = "0.0.0.0"
    config.temperature = 0.5
    (tmp_path / "b").mkdir()
    assert not application(answerer, config, tmp_path / "b").local
