"""Records: every mistake raises with its reason, file, line, key and cure."""

from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.record import BadSample, Record, parse_record, select_views
from omnihuman.modality import View

QUESTION = {"from": "human", "value": "<video>\n<audio>\nWho?"}
ANSWER = {"from": "gpt", "value": "A man."}
VALID = {"id": "7", "video": "talk.mp4", "conversations": [QUESTION, ANSWER]}


def build_entry(text: str, **media: str) -> dict[str, Any]:
    """Return an entry of one turn; its medium is talk.mp4 by default."""
    return {"conversations": [{"from": "human", "value": text}, ANSWER], **(media or {"video": "talk.mp4"})}


INVALID = {
    "not an object": ([1], "malformed_record", "object"),
    "no conversations": ({"video": "talk.mp4"}, "missing_conversations", "conversations"),
    "unknown role": (VALID | {"conversations": [{"from": "bot", "value": "x"}, ANSWER]}, "unknown_role", "'bot'"),
    "odd turns": (VALID | {"conversations": [QUESTION]}, "odd_turns", "answer from gpt"),
    "two questions": (VALID | {"conversations": [QUESTION, QUESTION]}, "odd_turns", "must alternate"),
    "no value": (VALID | {"conversations": [{"from": "human"}, ANSWER]}, "malformed_record", "value"),
    "placeholder without medium": (build_entry("<video>\nWho?", task="x"), "placeholder_without_media", "add 'video'"),
    "placeholder of another medium": (
        build_entry("<video>\nWho?", audio="tone.wav"),
        "placeholder_without_media",
        "audio",
    ),
    "medium without placeholder": (build_entry("Who?"), "media_without_placeholder", "write <video>"),
    "slot in an answer": (
        VALID | {"conversations": [QUESTION, {"from": "gpt", "value": "<audio>"}]},
        "placeholder_in_answer",
        "human turn",
    ),
    "no medium": (build_entry("Who?", task="x"), "no_media", "add one of video, image, audio"),
    "second audio file": (VALID | {"audio": "tone.wav"}, "malformed_record", "key audio_track"),
    "two media": (VALID | {"image": "image.png"}, "malformed_record", "video and image"),
    "a list of files": (VALID | {"video": ["talk.mp4", "late.mp4"]}, "malformed_record", "video lists 2 files"),
    "a list of tracks": (VALID | {"audio_track": ["a.wav", "b.wav"]}, "malformed_record", "audio_track lists 2 files"),
    "a file is a number": (VALID | {"video": 7}, "malformed_record", "video must be a path, got 7"),
    "a file is an object": (VALID | {"video": [{"path": "talk.mp4"}]}, "malformed_record", "video must be a path"),
    "the list of another trainer": (
        build_entry("<video>\nWho?", videos=["talk.mp4"]),
        "no_media",
        "rename it to 'video'",
    ),
    "mistyped key of the file": (build_entry("Who?", vidoe="talk.mp4"), "no_media", "'vidoe'"),
    "Windows path": (VALID | {"video": "clips\\talk.mp4"}, "missing_file", "write / in place of \\"),
    "URL": (VALID | {"video": "https://a.org/talk.mp4"}, "missing_file", "download the file"),
    "system that is no text": (VALID | {"system": 3}, "malformed_record", "system must be text"),
    "tag in the system prompt": (VALID | {"system": "See <video>."}, "placeholder_in_system", "<video>"),
    "prime that is no text": (VALID | {"prime": ["A"]}, "malformed_record", "prime must be text"),
    "half a character": (VALID | {"task": "\ud83d"}, "malformed_record", "task has half a character"),
    "start is true": (VALID | {"start": True}, "malformed_record", "seconds, got True"),
    "start is beyond all numbers": (VALID | {"start": 10**400}, "malformed_record", "seconds"),
    "end is beyond all files": (VALID | {"end": 1e300}, "malformed_record", "seconds"),
    "an unhashable need": (VALID | {"needs": [["video"]]}, "malformed_record", "needs must be a list"),
    "missing file": (VALID | {"video": "missing.mp4"}, "missing_file", "missing.mp4"),
    "folder as audio": (build_entry("<audio>\nWho?", audio="."), "missing_file", "no such file"),
    "zero fps": (VALID | {"fps": 0}, "malformed_record", "frames per second"),
    "negative stream": (VALID | {"audio_stream": -1}, "malformed_record", "audio_stream"),
    "stream is a fraction": (VALID | {"video_stream": 0.5}, "malformed_record", "video_stream"),
    "stream is a flag": (VALID | {"audio_stream": True}, "malformed_record", "audio_stream"),
    "missing audio track": (VALID | {"audio_track": "missing.wav"}, "missing_file", "audio_track 'missing.wav'"),
    "second clip outside": (VALID | {"second_clip": "../outside.mp4"}, "outside_root", "second_clip '../outside.mp4'"),
    "invalid path": (VALID | {"video": "a\0b"}, "missing_file", "not a valid path"),
    "path too long": (VALID | {"video": "a" * 5000}, "missing_file", "aaa"),
    "path upwards": (VALID | {"video": "../outside.mp4"}, "outside_root", "data.root"),
    "absolute path": (VALID | {"video": "/etc/passwd"}, "outside_root", "data.root"),
    "link outside": (VALID | {"video": "link.mp4"}, "outside_root", "link.mp4"),
    "end before start": (VALID | {"start": 2, "end": 1}, "malformed_record", "end 1"),
    "negative start": (VALID | {"start": -1}, "malformed_record", "seconds"),
    "start is not a number": (VALID | {"start": float("nan")}, "malformed_record", "seconds"),
    "start is text": (VALID | {"start": "1.0"}, "malformed_record", "seconds"),
    "unknown need": (VALID | {"needs": ["smell"]}, "malformed_record", "smell"),
    "needs is not a list": (VALID | {"needs": "video"}, "malformed_record", "needs must be a list"),
    "task is not a string": (VALID | {"task": 3}, "malformed_record", "task"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_record_raises(name: str, media_root: Path) -> None:
    raw, reason, message = INVALID[name]
    with pytest.raises(BadSample) as caught:
        parse_record(raw, "7", media_root, "train.jsonl:3")
    assert caught.value.reason == reason
    assert "train.jsonl:3" in str(caught.value)
    assert message in str(caught.value)


def test_a_valid_record_is_parsed(media_root: Path) -> None:
    raw = VALID | {"start": 0.5, "end": 1, "task": "who", "needs": ["audio"], "emotion": "sad"}
    record = parse_record(raw, "7", media_root, "a.json[0]")
    assert record.file == (media_root / "talk.mp4").resolve()
    assert (record.slots, record.start, record.end, record.task) == (("video", "audio"), 0.5, 1.0, "who")
    assert (record.needs, record.meta) == (("audio",), {"emotion": "sad"})
    assert record.messages[0] == ("user", QUESTION["value"])


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_an_image_has_the_video_slot_and_audio_the_audio_slot(kind: str, media_root: Path) -> None:
    name = {"image": "image.png", "audio": "tone.wav"}[kind]
    record = parse_record(build_entry(f"<{kind}>\nWhat?", **{kind: name}), "1", media_root, "a.json[0]")
    assert record.slots == ({"image": "video", "audio": "audio"}[kind],)
    assert record.drop_slots(record.slots).messages[0] == ("user", "What?")


def test_a_list_of_one_file_counts_as_the_file(media_root: Path) -> None:
    raw = VALID | {"video": ["talk.mp4"], "audio_track": ["tone.wav"]}
    record = parse_record(raw, "7", media_root, "a.json[0]")
    assert [file.name for file in record.files] == ["talk.mp4", "tone.wav"]


def test_a_text_that_is_null_is_missing(media_root: Path) -> None:
    record = parse_record(VALID | {"prime": None, "system": None, "note": None}, "7", media_root, "a.json[0]")
    assert record.meta == {"note": None}


def test_a_record_without_a_file_is_text_where_that_is_allowed(media_root: Path) -> None:
    raw = {"conversations": [{"from": "human", "value": "Who?"}, ANSWER], "images": []}
    record = parse_record(raw, "7", media_root, "a.json[0]", allow_text_only=True)
    assert (record.kind, record.slots, record.files) == ("text", (), ())
    assert select_views(record, [View("VAF"), View("A")]) == [record], "the text is part of every view, once"
    with pytest.raises(BadSample, match="'videos': rename it to 'video'"):
        parse_record(raw | {"videos": ["talk.mp4"]}, "7", media_root, "a.json[0]", allow_text_only=True)


def hidden_fields(record: Record) -> list[str]:
    return [name for name in record.hidden if name in ("frames", "faces")]


def test_restrict_is_none_without_the_needed_modalities(media_root: Path) -> None:
    record = parse_record(VALID | {"needs": ["audio"]}, "7", media_root, "a.json[0]")
    assert record.restrict(View("VF")) is None
    audio = record.restrict(View("A"))
    assert audio is not None and (audio.slots, audio.messages[0][1]) == (("audio",), "<audio>\nWho?")
    assert audio.restrict(View("F")) is None
    assert record.restrict(View("VAF")) is not None


def test_views_with_the_same_result_count_once(media_root: Path) -> None:
    record = parse_record(VALID, "7", media_root, "a.json[0]")
    viewed = select_views(record, [View("VF"), View("V"), View("V"), View("VA")])
    assert [(entry.slots, hidden_fields(entry)) for entry in viewed] == [
        (("video",), []),
        (("video",), ["faces"]),
        (("video", "audio"), ["faces"]),
    ]
    assert len({entry.id for entry in viewed}) == 3


def test_views_with_the_same_slots_hide_different_fields(media_root: Path) -> None:
    record = parse_record(VALID, "7", media_root, "a.json[0]")
    viewed = select_views(record, [View(letters) for letters in ("F", "VF", "V", "AF", "A")])
    assert [hidden_fields(entry) for entry in viewed] == [["frames"], [], ["faces"], ["frames"], []]
    assert len({entry.id for entry in viewed}) == 5


def test_a_record_lists_all_its_files(media_root: Path) -> None:
    raw = build_entry("<video>\n<audio>\nSame?", video="talk.mp4", audio_track="tone.wav", second_clip="silent.mp4")
    record = parse_record(raw | {"fps": 5}, "1", media_root, "a.json[0]")
    assert [file.name for file in record.files] == ["talk.mp4", "tone.wav", "silent.mp4"]
    assert (record.fps, record.meta) == (5.0, {})
