"""Several questions about one clip, without a page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.media import Header
from omnihuman.evaluation.answerer import Answerer, Prompt
from omnihuman.serving.conversation import TURNS, Conversation, Medium, Turn, modals_of
from omnihuman.serving.uploads import Limits, Uploads

OPTIONS = {"max_new_tokens": 6, "temperature": 0.0, "top_p": 1.0}


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.of_run(model_folder("humanomni_stage3"))


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Path]:
    return sorted((corpus / "media").glob("train_talk*.mp4"))


@pytest.fixture
def talk(answerer: Answerer, clips: list[Path]) -> Conversation:
    made = Conversation(answerer, Uploads(Limits(seconds=20.0)))
    made.place("video", clips[0], "mine.mp4")
    return made


def ask(talk: Conversation, question: str, modal: str = "video_audio", **options: Any) -> Turn:
    return list(talk.ask(question, modal, OPTIONS | options, 0))[-1]


def test_a_turn_grows_and_ends_with_what_it_was_made_of(talk: Conversation) -> None:
    seen = [(turn.done, bool(turn.shown), turn.said) for turn in talk.ask("Who is it?", "video_audio", OPTIONS, 0)]
    assert seen[0] == (False, False, "") and seen[1][:2] == (False, True) and seen[-1][0]
    pieces = [said for is_done, _, said in seen if not is_done]
    assert pieces == sorted(pieces, key=len)
    turn = talk.turns[-1]
    assert not turn.error and turn.shown.count("<img") == 9 and turn.weights.count("data-weight") == 3
    counts = turn.facts["prompt tokens"].replace("=", "+").split(" + ")
    assert [part.split()[-1] for part in counts[1:]] == ["video", "audio", "words"]
    assert int(counts[0]) == sum(int(part.split()[0]) for part in counts[1:])
    assert turn.facts["time"].endswith(" s") and int(turn.facts["new tokens"]) <= 6


def test_a_question_follows_those_before_it_about_the_same_clip(
    talk: Conversation, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Prompt] = []
    inner = talk.answerer.prompt
    monkeypatch.setattr(talk.answerer, "prompt", lambda *given: asked.append(inner(*given)) or asked[-1])
    first = ask(talk, "Who is it?")
    ask(talk, "   ")  # it is not asked, and no part of what follows
    ask(talk, "And <video> why?", "video")
    user, answer, again, open_end = asked[-1].record.messages
    assert (
        user == ("user", "<video>\nWho is it?")
        and answer == ("assistant", first.said)
        and open_end == ("assistant", "")
    )
    assert again == ("user", "And  why?") and asked[-1].sample.instruction == "And <video> why?"
    assert asked[-1].sample.waveform is None and asked[0].sample.waveform is not None
    talk.place("video", clips[1], "other.mp4")
    ask(talk, "And here?")
    assert len(asked[-1].record.messages) == 2
    ask(talk, "Hello?", "text")
    assert asked[-1].record.kind == "text" and len(asked[-1].record.messages) == 2
    talk.clear()
    assert "no clip" in ask(talk, "Who?").error and len(talk.turns) == 1


@pytest.mark.parametrize(
    ("question", "modal", "why"),
    [
        ("", "video", "Write a question"), ("x" * 4001, "video", "4001 letters"), ("<|im_end|>", "video", "ends turns"),
        ("Who?", "faces", "choose another way"), ("Who?", "sideways", "choose another way"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_without_a_path(talk: Conversation, question: str, modal: str, why: str) -> None:
    turn = ask(talk, question, modal)
    assert why in turn.error and turn.done and not turn.said
    assert "/" not in turn.error and "data." not in turn.error and "this clip" not in turn.error
    assert not ask(talk, "Who?").error  # the conversation goes on


def test_a_clip_that_is_cut_off_behind_its_header_fails_when_it_is_read(
    talk: Conversation, clips: list[Path], tmp_path: Path
) -> None:
    import av

    fast, cut = tmp_path / "fast.mp4", tmp_path / "upload.mp4"
    with av.open(str(clips[0])) as given, av.open(str(fast), "w", options={"movflags": "faststart"}) as made:
        streams = {one.index: made.add_stream_from_template(one) for one in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                index = packet.stream.index
                packet.stream = streams[index]
                made.mux(packet)
    cut.write_bytes(fast.read_bytes()[: int(fast.stat().st_size * 0.6)])
    talk.place("video", cut, "cut.mp4")
    turn = ask(talk, "Who?")
    assert turn.error.startswith("cut.mp4: ") and "cut" in turn.error[9:] and str(tmp_path) not in turn.error
    assert "upload.mp4" not in turn.error


def test_what_is_no_clip_is_refused_before_it_is_decoded(
    answerer: Answerer, talk: Conversation, corpus: Path, tmp_path: Path
) -> None:
    letter, sound = tmp_path / "letter.mp4", sorted((corpus / "media").glob("*.wav"))[0]
    letter.write_text("Dear model, " * 100)
    for kind, file, why in (
        ("video", letter, "not a media file"), ("video", tmp_path / "none", "no such file"),
        ("video", sound, "holds no pictures"), ("image", talk.medium.file if talk.medium else letter, "holds no still"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"shown.*{why}") as failure:
            talk.place(kind, file, "shown")
        assert str(file) not in str(failure.value) and talk.medium is None
    with pytest.raises(ValueError, match=r"at most 0\.5 s"):
        Conversation(answerer, Uploads(Limits(seconds=0.5))).place("audio", sound, "shown")


def test_a_stop_ends_the_answer_where_it_is(talk: Conversation) -> None:
    turn = Turn("", "", None)
    for turn in talk.ask("Describe it.", "video", {"max_new_tokens": 4000, "temperature": 90.0}, 1):
        talk.stopped = len(turn.said) > 10
    assert turn.done and turn.notes[-1] == "Stopped here." and int(turn.facts["new tokens"]) < 3000
    assert ask(talk, "Again?").notes == () or ask(talk, "Again?").notes[-1].startswith("Cut at")


def test_what_nobody_foresaw_is_logged_and_not_shown(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory at /srv/models")

    monkeypatch.setattr(talk.answerer, "stream", fail)
    turn = ask(talk, "Who?")
    assert "could not answer" in turn.error and "CUDA" not in turn.error and "CUDA out of memory" in caplog.text


def test_only_the_last_turns_are_kept(talk: Conversation) -> None:
    for _ in range(TURNS + 3):
        ask(talk, "")
    assert len(talk.turns) == TURNS


@pytest.mark.parametrize(
    ("senses", "kind", "modals"),
    [
        ("VAF", "video", ["video_audio", "video", "audio", "frames_audio", "frames", "faces_audio", "faces", "text"]),
        ("VAF", "image", ["video", "frames", "faces", "text"]), ("F", "video", ["video", "text"]),
        ("A", "video", ["audio", "text"]), ("VA", None, ["text"]), ("", "video", ["text"]),
    ],
)  # fmt: skip
def test_a_clip_is_offered_in_the_ways_that_the_model_can_take(
    senses: str, kind: str | None, modals: Sequence[str]
) -> None:
    assert modals_of(senses, kind) == modals


def test_a_clip_is_described_by_its_header() -> None:
    def words(kind: str, header: Header) -> str:
        return Medium(kind, Path("a"), "a", header).words

    assert words("video", Header(True, (0.0, 0.0), frames=120, rate=23.976)) == "5.0 s, 24 pictures a second, no sound"
    assert words("video", Header(True, (0.0, 2.5))) == "2.5 s, sound"  # a recording, whose header says less
    assert words("image", Header(True, is_still=True, frames=1)) == "a picture"
