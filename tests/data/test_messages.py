"""Chat messages -> records, and generation options of other tools -> those of transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnihuman.data import media
from omnihuman.data.messages import build_record, parse_generation_options, save_medium, truncate_at_stops
from omnihuman.data.record import BadSample
from omnihuman.modality import View


def build_turn(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}]


def build_text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


QUESTION = build_text("Who?")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    file = tmp_path / "a.mp4"
    file.touch()
    return file


def test_a_video_has_both_slots_and_its_span(clip: Path, tmp_path: Path) -> None:
    video = {"type": "video", "url": str(clip), "start_time": 1.5, "end_time": 4}
    turn = build_turn(build_text("Look:"), video, build_text("<video>\nWho?"))
    record = build_record(turn, "7", "task[7]", tmp_path)
    assert record.messages == (("user", "<video>\n<audio>\nLook:\nWho?"), ("assistant", ""))
    assert (record.id, record.file, record.kind, record.slots) == ("7", clip, "video", ("video", "audio"))
    assert (record.start, record.end, record.audio_track, record.faces) == (1.5, 4.0, None, None)
    nested = {"type": "video", "url": {"path": f"file://{clip}", "video_start": 1.5, "video_end": 4}}
    assert build_record(build_turn(nested, build_text("Look:\nWho?")), "7", "task[7]", tmp_path) == record


def test_the_last_turn_of_a_conversation_is_the_question(clip: Path, tmp_path: Path) -> None:
    turns = [
        *build_turn(QUESTION, {"type": "video", "url": str(clip)}),
        {"role": "assistant", "content": "a man"},
        {"role": "user", "content": "<image>\nWhere?"},
    ]
    record = build_record(turns, "7", "chat", tmp_path, {"instruction": "Where?"})
    assert record.messages == (
        ("user", "<video>\n<audio>\nWho?"),
        ("assistant", "a man"),
        ("user", "Where?"),
        ("assistant", ""),
    )
    assert record.meta == {"instruction": "Where?"}


def test_a_text_question_needs_no_media(tmp_path: Path) -> None:
    record = build_record([{"role": "user", "content": "Hello?"}], "7", "chat", tmp_path)
    assert (record.kind, record.files, record.slots) == ("text", (), ())
    assert record.messages[0] == ("user", "Hello?")
    assert record.restrict(View.parse("text")) == record and record.restrict(View.parse("video")) is None


def test_extra_fields_set_faces_and_fps(clip: Path, tmp_path: Path) -> None:
    extra = {"faces": [{"time": 0.5, "box": [1, 2, 3, 4]}], "fps": 5.0}
    record = build_record(build_turn({"type": "video", "url": str(clip)}, QUESTION), "7", "task[7]", tmp_path, extra)
    assert record.faces is not None and record.faces[0].boxes == ((1.0, 2.0, 3.0, 4.0),) and record.fps == 5.0


def test_audio_next_to_a_video_is_its_audio_track(clip: Path, tmp_path: Path) -> None:
    audio = {"type": "audio", "url": {"array": np.zeros(160), "sampling_rate": 16000}}
    record = build_record(build_turn(audio, {"type": "video", "url": str(clip)}, QUESTION), "7", "task[7]", tmp_path)
    assert record.kind == "video" and record.audio_track == tmp_path / "7.wav"


def test_audio_in_memory_is_saved_to_a_file(tmp_path: Path) -> None:
    expected = 0.5 * np.sin(np.arange(8000) / 20)
    array = {"array": expected, "sampling_rate": 16000, "path": "missing.flac"}
    turn = build_turn({"type": "audio", "url": array}, build_text("Say it."))
    record = build_record(turn, "7", "asr[7]", tmp_path)
    assert record.kind == "audio" and record.messages[0][1] == "<audio>\nSay it."
    header = media.probe(record.file)
    waveform = media.read(record.file, num_frames=0, num_samples=8000, header=header)[2]
    assert waveform is not None and np.abs(waveform.numpy() - expected).max() < 1e-4


def test_an_image_in_memory_is_saved_to_a_file(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 6, 3), 200, np.uint8))
    turn = build_turn({"type": "image", "url": image}, build_text("<image>What?"))
    record = build_record(turn, "8", "vqa[8]", tmp_path)
    assert record.kind == "image" and record.messages[0][1] == "<image>\nWhat?"
    assert Image.open(record.file).size == (6, 4)


@pytest.mark.parametrize(
    "kinds, message",
    [
        (["video", "video"], r"\bone video"),
        (["image", "audio"], r"images alone.* audio as well"),
        (["depth"], "unknown content 'depth'"),
    ],
)
def test_unsupported_content_raises(kinds: list[str], message: str, clip: Path, tmp_path: Path) -> None:
    content = [{"type": kind, "url": str(clip)} for kind in kinds]
    with pytest.raises(ValueError, match=rf"task\[7\].*{message}"):
        build_record(build_turn(*content, QUESTION), "7", "task[7]", tmp_path)


def test_a_system_turn_is_the_system_prompt(clip: Path, tmp_path: Path) -> None:
    turns = build_turn({"type": "video", "url": str(clip)}, QUESTION)
    for content in ("Be brief.", [build_text("Be brief.")]):
        record = build_record([{"role": "system", "content": content}, *turns], "7", "task[7]", tmp_path)
        assert record.meta["system"] == "Be brief." and record.kind == "video"
    with pytest.raises(ValueError, match=r"task\[7\]: .*system turn.* video"):
        build_record([turns[0] | {"role": "system"}, *turns], "7", "task[7]", tmp_path)


def test_unexpected_turns_raise(clip: Path, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": [build_text("Ann")]}
    question = build_turn(QUESTION)
    for turns in ([answer], question * 2, [*question, answer], [{"role": "system"}], []):
        with pytest.raises(ValueError, match=r"task\[7\]: user and assistant .*alternate"):
            build_record(turns, "7", "task[7]", tmp_path)
    second = build_turn({"type": "video", "url": str(clip)})
    with pytest.raises(ValueError, match=r"first turn only.*turn 2 .*\['video'\]"):
        build_record([*question, answer, *second], "7", "task[7]", tmp_path)


def test_a_missing_file_raises(tmp_path: Path) -> None:
    video = {"type": "video", "url": f"{tmp_path}/missing.mp4"}
    with pytest.raises(BadSample, match=r"task\[7\]: video .*missing.mp4.*no such file"):
        build_record(build_turn(video, QUESTION), "7", "task[7]", tmp_path)


def test_a_medium_of_an_unknown_type_raises(tmp_path: Path) -> None:
    for kind, medium in (("video", np.zeros(3)), ("image", b"png"), ("audio", {"array": np.zeros((2, 9))})):
        with pytest.raises(ValueError, match=rf"task\[7\]: unknown {kind} of type {type(medium).__name__}"):
            save_medium(medium, kind, tmp_path / "7", "task[7]")


@pytest.mark.parametrize(
    "options, expected",
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
def test_a_positive_temperature_samples(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse_generation_options(options) == (expected, (), ())


def test_an_answer_ends_at_the_first_stop_text() -> None:
    assert parse_generation_options({"until": "\n\n"})[1] == ("\n\n",)
    assert truncate_at_stops("sad\n\nhappy.", ["happy", "\n\n", ""]) == "sad"
    assert truncate_at_stops("sad", []) == "sad"
