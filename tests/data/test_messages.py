"""Chat messages -> records, and a kit's generation options -> ours; no kit is needed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnihuman.data import media
from omnihuman.data.messages import cut, file_of, options_of, record_of
from omnihuman.data.record import BadSample


def turn(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    file = tmp_path / "a.mp4"
    file.touch()
    return file


def test_a_video_is_seen_and_heard_between_its_times(clip: Path, tmp_path: Path) -> None:
    video = {"type": "video", "url": str(clip), "start_time": 1.5, "end_time": 4}
    made = record_of(turn(text("Look:"), video, text("<video>\nWho?")), "7", "task[7]", tmp_path)
    assert made.messages == (("user", "<video>\n<audio>\nLook:\nWho?"), ("assistant", ""))
    assert (made.id, made.file, made.kind, made.slots) == ("7", clip, "video", ("video", "audio"))
    assert (made.start, made.end, made.sound, made.faces) == (1.5, 4.0, None, None)
    packed = {"type": "video", "url": {"path": f"file://{clip}", "video_start": 1.5, "video_end": 4}}
    assert record_of(turn(packed, text("Look:\nWho?")), "7", "task[7]", tmp_path) == made


def test_a_conversation_is_asked_at_its_end(clip: Path, tmp_path: Path) -> None:
    turns = [
        *turn(text("Who?"), {"type": "video", "url": str(clip)}),
        {"role": "assistant", "content": "a man"},
        {"role": "user", "content": "<image>\nWhere?"},
    ]
    made = record_of(turns, "7", "chat", tmp_path, {"instruction": "Where?"})
    assert made.messages == (
        ("user", "<video>\n<audio>\nWho?"), ("assistant", "a man"), ("user", "Where?"), ("assistant", "")
    )  # fmt: skip
    assert made.meta == {"instruction": "Where?"}


def test_words_alone_are_a_question_too(tmp_path: Path) -> None:
    made = record_of([{"role": "user", "content": "Hello?"}], "7", "chat", tmp_path)
    assert (made.kind, made.files, made.slots) == ("text", (), ()) and made.messages[0] == ("user", "Hello?")
    assert made.seen_as("text") == made and made.seen_as("video") is None


def test_a_document_says_where_faces_are(clip: Path, tmp_path: Path) -> None:
    extra = {"faces": [{"time": 0.5, "box": [1, 2, 3, 4]}], "rate": 5.0}
    made = record_of(turn({"type": "video", "url": str(clip)}, text("Who?")), "7", "task[7]", tmp_path, extra)
    assert made.faces is not None and made.faces[0].boxes == ((1.0, 2.0, 3.0, 4.0),) and made.rate == 5.0


def test_sound_beside_a_video_is_its_sound(clip: Path, tmp_path: Path) -> None:
    sound = {"type": "audio", "url": {"array": np.zeros(160), "sampling_rate": 16000}}
    made = record_of(turn(sound, {"type": "video", "url": str(clip)}, text("Who?")), "7", "task[7]", tmp_path)
    assert made.kind == "video" and made.sound == tmp_path / "7.wav"


def test_what_is_in_memory_becomes_a_file_that_we_can_read(tmp_path: Path) -> None:
    wave = 0.5 * np.sin(np.arange(8000) / 20)
    given = {"array": wave, "sampling_rate": 16000, "path": "gone.flac"}
    made = record_of(turn({"type": "audio", "url": given}, text("Say it.")), "7", "asr[7]", tmp_path)
    assert made.kind == "audio" and made.messages[0][1] == "<audio>\nSay it."
    heard = media.read(made.file, num_frames=0, num_samples=8000, header=media.probe(made.file))[2]
    assert heard is not None and np.abs(heard.numpy() - wave).max() < 1e-4
    picture = Image.fromarray(np.full((4, 6, 3), 200, np.uint8))
    made = record_of(turn({"type": "image", "url": picture}, text("<image>What?")), "8", "vqa[8]", tmp_path)
    assert made.kind == "image" and made.messages[0][1] == "<image>\nWhat?"
    assert Image.open(made.file).size == (6, 4)


@pytest.mark.parametrize(
    "parts, message",
    [
        (["video", "video"], "takes one video"),
        (["image", "audio"], "an image alone, this prompt has image and audio"),
        (["depth"], "this one has 'depth'"),
    ],
)
def test_what_the_model_cannot_take_is_named(parts: list[str], message: str, clip: Path, tmp_path: Path) -> None:
    content = [{"type": kind, "url": str(clip)} for kind in parts]
    with pytest.raises(ValueError, match=rf"task\[7\].*{message}"):
        record_of(turn(*content, text("Who?")), "7", "task[7]", tmp_path)


def test_other_turns_are_refused(clip: Path, tmp_path: Path) -> None:
    answer, later = {"role": "assistant", "content": [text("Ann")]}, turn({"type": "video", "url": str(clip)})
    for roles in ([answer], turn(text("Who?")) * 2, [*turn(text("Who?")), answer], [{"role": "system"}], []):
        with pytest.raises(ValueError, match=r"task\[7\]: a conversation is of user and assistant in turns"):
            record_of(roles, "7", "task[7]", tmp_path)
    with pytest.raises(ValueError, match=r"the first turn only; turn 2 has \['video'\]"):
        record_of([*turn(text("Who?")), answer, *later], "7", "task[7]", tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSample, match=r"task\[7\]: video .*gone.mp4.*no such file"):
        record_of(turn({"type": "video", "url": f"{tmp_path}/gone.mp4"}, text("Who?")), "7", "task[7]", tmp_path)


def test_a_medium_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    for kind, medium in (("video", np.zeros(3)), ("image", b"png"), ("audio", {"array": np.zeros((2, 9))})):
        with pytest.raises(ValueError, match=rf"task\[7\]: {kind} is a {type(medium).__name__}"):
            file_of(medium, kind, tmp_path / "7", "task[7]")


@pytest.mark.parametrize(
    "given, ours",
    [
        ({}, {}),
        ({"temperature": 0, "top_p": None, "do_sample": False, "num_beams": 1}, {"num_beams": 1}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9, "do_sample": True}),
        ({"temperature": 0.7, "do_sample": False}, {}),
        ({"do_sample": True}, {"do_sample": True}),
        ({"do_sample": True, "temperature": 0}, {}),
        ({"max_new_tokens": 8, "until": None}, {"max_new_tokens": 8}),
    ],
)
def test_a_temperature_samples_and_none_is_greedy(given: dict[str, Any], ours: dict[str, Any]) -> None:
    assert options_of(given) == (ours, (), ())


def test_an_answer_ends_at_the_first_of_its_stops() -> None:
    assert options_of({"until": "\n\n"})[1] == ("\n\n",)
    assert cut("sad\n\nhappy.", ["happy", "\n\n", ""]) == "sad"
    assert cut("sad", []) == "sad"
