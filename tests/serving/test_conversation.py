"""Several questions about one clip, without a page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.media import Header
from omnihuman.inference.answer import Prompt
from omnihuman.inference.answerer import Answerer
from omnihuman.modality import View
from omnihuman.serving.conversation import MAX_TURNS, Conversation, Medium, Turn, views_of
from omnihuman.serving.uploads import Limits, Uploads

OPTIONS = {"max_new_tokens": 6, "temperature": 0.0, "top_p": 1.0}


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.load(model_folder("humanomni_stage3"))


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Path]:
    return sorted((corpus / "media").glob("train_talk*.mp4"))


@pytest.fixture
def conversation(answerer: Answerer, clips: list[Path]) -> Conversation:
    """A conversation about a clip."""
    conversation = Conversation(answerer, Uploads(Limits(seconds=20.0)))
    conversation.open("video", clips[0], "mine.mp4")
    return conversation


@pytest.fixture
def prompts(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts of the questions so far."""
    prompts: list[Prompt] = []
    build_prompt = conversation.answerer.build_prompt

    def record_prompt(*args: Any) -> Prompt:
        prompts.append(build_prompt(*args))
        return prompts[-1]

    monkeypatch.setattr(conversation.answerer, "build_prompt", record_prompt)
    return prompts


def ask(conversation: Conversation, question: str, view: str = "VA") -> Turn:
    return list(conversation.ask(question, view, OPTIONS, 0))[-1]


def test_turn_grows_and_ends_with_inputs_weights_and_statistics(conversation: Conversation) -> None:
    states: list[tuple[bool, bool, str]] = []
    for turn in conversation.ask("Who is it?", "VA", OPTIONS, 0):
        states.append((turn.is_done, bool(turn.inputs_html), turn.answer))
    assert states[0] == (False, False, "") and states[1][:2] == (False, True) and states[-1][0]
    answers = [answer for is_done, _, answer in states if not is_done]
    assert answers == sorted(answers, key=len)
    turn = conversation.turns[-1]
    assert not turn.error and turn.inputs_html.count("<img") == 9 and turn.weights_html.count("data-weight") == 3
    total, terms = turn.statistics["prompt tokens"].split(" = ")
    assert [term.split()[-1] for term in terms.split(" + ")] == ["video", "audio", "text"]
    assert int(total) == sum(int(term.split()[0]) for term in terms.split(" + "))
    assert turn.statistics["time"].endswith(" s") and int(turn.statistics["new tokens"]) <= 6


def test_question_includes_earlier_turns_about_the_same_clip(
    conversation: Conversation, clips: list[Path], prompts: list[Prompt]
) -> None:
    first = ask(conversation, "Who is it?")
    ask(conversation, "   ")  # fails, and is not part of later prompts
    ask(conversation, "And <video> why?", "V")
    assert prompts[-1].record.messages == (
        ("user", "<video>\nWho is it?"),
        ("assistant", first.answer),
        ("user", "And  why?"),
        ("assistant", ""),
    )
    assert prompts[-1].sample.instruction == "And <video> why?"
    assert prompts[-1].sample.waveform is None and prompts[0].sample.waveform is not None


def test_other_clips_and_text_questions_start_anew(
    conversation: Conversation, clips: list[Path], prompts: list[Prompt]
) -> None:
    ask(conversation, "Who is it?")
    conversation.open("video", clips[1], "other.mp4")
    ask(conversation, "And here?")
    assert len(prompts[-1].record.messages) == 2
    ask(conversation, "Hello?", "text")
    assert prompts[-1].record.kind == "text" and len(prompts[-1].record.messages) == 2


def test_cleared_conversation_has_no_clip_and_no_turns(conversation: Conversation) -> None:
    ask(conversation, "")
    conversation.clear()
    assert "no clip" in ask(conversation, "Who?").error and len(conversation.turns) == 1


@pytest.mark.parametrize(
    ("question", "view", "message"),
    [
        ("", "V", "Write a question"),
        ("x" * 4001, "V", "4001 characters"),
        ("<|im_end|>", "V", "ends turns"),
        ("Who?", "F", "choose another input"),
        ("Who?", "sideways", "unknown view"),
    ],
)
def test_error_of_a_question_names_no_path(conversation: Conversation, question: str, view: str, message: str) -> None:
    turn = ask(conversation, question, view)
    assert message in turn.error and turn.is_done and not turn.answer
    assert "/" not in turn.error and "data." not in turn.error and "this clip" not in turn.error
    assert not ask(conversation, "Who?").error


def _write_truncated(clip: Path, folder: Path) -> Path:
    """Write a clip with an intact header at its start that is cut off after it."""
    import av

    complete, truncated = folder / "whole.mp4", folder / "upload.mp4"
    with av.open(str(clip)) as source, av.open(str(complete), "w", options={"movflags": "faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    truncated.write_bytes(complete.read_bytes()[: int(complete.stat().st_size * 0.6)])
    return truncated


def test_truncated_clip_is_an_error_under_its_display_name(
    conversation: Conversation, clips: list[Path], tmp_path: Path
) -> None:
    conversation.open("video", _write_truncated(clips[0], tmp_path), "cut.mp4")
    turn = ask(conversation, "Who?")
    assert turn.error.startswith("cut.mp4: ") and "cut" in turn.error[9:]
    assert "upload.mp4" not in turn.error and str(tmp_path) not in turn.error


def test_files_that_are_no_clip_are_rejected(conversation: Conversation, corpus: Path, tmp_path: Path) -> None:
    letter, audio = tmp_path / "letter.mp4", sorted((corpus / "media").glob("*.wav"))[0]
    letter.write_text("Dear model, " * 100)
    assert conversation.medium is not None
    for kind, file, message in (
        ("video", letter, "not .*media file"),
        ("video", tmp_path / "none", "no such file"),
        ("video", audio, "no video; .* s, audio"),
        ("image", conversation.medium.file, "no image"),
    ):
        with pytest.raises(ValueError, match=f"upload.*{message}") as caught:
            conversation.open(kind, file, "upload")
        assert str(file) not in str(caught.value) and conversation.medium is None


def test_clip_above_the_limit_is_rejected(answerer: Answerer, clips: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"at most 0\.5 s"):
        Conversation(answerer, Uploads(Limits(seconds=0.5))).open("video", clips[0], "upload")


def test_stop_ends_the_answer(conversation: Conversation) -> None:
    turn = Turn("", View(""), None)
    for turn in conversation.ask("Describe it.", "V", {"max_new_tokens": 4000, "temperature": 90.0}, 1):
        conversation.stopped = len(turn.answer) > 10
    assert turn.is_done and turn.notes[-1] == "Stopped." and int(turn.statistics["new tokens"]) < 3000
    assert "Stopped." not in ask(conversation, "Again?").notes


def test_unexpected_error_is_logged_and_not_shown(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory at /srv/models")

    monkeypatch.setattr(conversation.answerer, "stream", fail)
    turn = ask(conversation, "Who?")
    assert "could not answer" in turn.error and "CUDA" not in turn.error and "CUDA out of memory" in caplog.text


def test_conversation_has_a_limited_number_of_turns(conversation: Conversation) -> None:
    for _ in range(MAX_TURNS + 3):
        ask(conversation, "")
    assert len(conversation.turns) == MAX_TURNS


@pytest.mark.parametrize(
    ("model_view", "kind", "views"),
    [
        ("VAF", "video", ["VAF", "VA", "VF", "AF", "V", "A", "F", "text"]),
        ("VAF", "image", ["VF", "V", "F", "text"]),
        ("F", "video", ["F", "text"]),
        ("A", "video", ["A", "text"]),
        ("VA", None, ["text"]),
        ("", "video", ["text"]),
    ],
)
def test_views_fit_the_model_and_the_medium(model_view: str, kind: str | None, views: Sequence[str]) -> None:
    assert [str(view) for view in views_of(View(model_view), kind)] == views


@pytest.mark.parametrize(
    ("kind", "header", "summary"),
    [
        ("video", Header(True, (0.0, 0.0), num_frames=120, fps=23.976), "5.0 s, 24 fps, no audio"),
        ("video", Header(True, (0.0, 2.5)), "2.5 s, audio"),  # a webcam recording without a number of frames
        ("image", Header(True, is_still=True, num_frames=1), "an image"),
    ],
)
def test_summary_describes_the_header(kind: str, header: Header, summary: str) -> None:
    assert Medium(kind, Path("a"), "a", header).summary == summary
