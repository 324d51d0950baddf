"""Every mistake in a record is told apart, and named with file, line, key and cure."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.datafile import read_records
from omnihuman.data.dataset import views_of
from omnihuman.data.record import BadSample, Record, Sighting, parse_record

QUESTION = {"from": "human", "value": "<video>\n<audio>\nWho?"}
ANSWER = {"from": "gpt", "value": "A man."}
GOOD = {"id": "7", "video": "talk.mp4", "conversations": [QUESTION, ANSWER]}


def turns(text: str, **media: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": text}, ANSWER], **(media or {"video": "talk.mp4"})}


BAD = {
    "no object": ([1], "malformed_record", "object"),
    "no conversations": ({"video": "talk.mp4"}, "missing_conversations", "conversations"),
    "unknown role": (GOOD | {"conversations": [{"from": "system", "value": "x"}, ANSWER]}, "unknown_role", "system"),
    "odd turns": (GOOD | {"conversations": [QUESTION]}, "odd_turns", "answer from gpt"),
    "two questions": (GOOD | {"conversations": [QUESTION, QUESTION]}, "odd_turns", "take turns"),
    "no value": (GOOD | {"conversations": [{"from": "human"}, ANSWER]}, "malformed_record", "value"),
    "placeholder without medium": (turns("<video>\nWho?", task="x"), "placeholder_without_media", "add 'video'"),
    "placeholder of another medium": (turns("<video>\nWho?", audio="sound.wav"), "placeholder_without_media", "audio"),
    "medium without placeholder": (turns("Who?"), "media_without_placeholder", "write <video>"),
    "slot twice": (turns("<video><video>\nWho?"), "placeholder_twice", "2 times"),
    "slot in an answer": (
        GOOD | {"conversations": [QUESTION, {"from": "gpt", "value": "<audio>"}]},
        "placeholder_in_answer",
        "human turn",
    ),
    "no medium": (turns("Who?", task="x"), "no_media", "give one of video, image, audio"),
    "two media": (GOOD | {"audio": "sound.wav"}, "malformed_record", "video, audio"),
    "missing file": (GOOD | {"video": "gone.mp4"}, "missing_file", "gone.mp4"),
    "a folder of sound": (turns("<audio>\nWho?", audio="."), "missing_file", "no such file"),
    "no rate": (GOOD | {"rate": 0}, "malformed_record", "pictures a second"),
    "sound that is not there": (GOOD | {"sound": "gone.wav"}, "missing_file", "sound 'gone.wav'"),
    "a second clip outside": (GOOD | {"then": "../outside.mp4"}, "outside_root", "then '../outside.mp4'"),
    "no path": (GOOD | {"video": "a\0b"}, "missing_file", "no path"),
    "path too long": (GOOD | {"video": "a" * 5000}, "missing_file", "aaa"),
    "path upwards": (GOOD | {"video": "../outside.mp4"}, "outside_root", "data.root"),
    "absolute path": (GOOD | {"video": "/etc/passwd"}, "outside_root", "data.root"),
    "link outside": (GOOD | {"video": "link.mp4"}, "outside_root", "link.mp4"),
    "end before start": (GOOD | {"start": 2, "end": 1}, "malformed_record", "end 1"),
    "negative start": (GOOD | {"start": -1}, "malformed_record", "seconds"),
    "start is no number": (GOOD | {"start": float("nan")}, "malformed_record", "seconds"),
    "start is text": (GOOD | {"start": "1.0"}, "malformed_record", "seconds"),
    "unknown need": (GOOD | {"needs": ["smell"]}, "malformed_record", "smell"),
    "needs is a word": (GOOD | {"needs": "video"}, "malformed_record", "needs is a list"),
    "task is no word": (GOOD | {"task": 3}, "malformed_record", "task"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_named(name: str, media_root: Path) -> None:
    raw, reason, words = BAD[name]
    with pytest.raises(BadSample) as caught:
        parse_record(raw, "7", media_root, "train.jsonl:3")
    assert caught.value.reason == reason
    assert "train.jsonl:3" in str(caught.value)
    assert words in str(caught.value)


def test_a_good_record(media_root: Path) -> None:
    raw = GOOD | {"start": 0.5, "end": 1, "task": "who", "needs": ["audio"], "emotion": "sad"}
    record = parse_record(raw, "7", media_root, "here")
    assert record.file == (media_root / "talk.mp4").resolve()
    assert (record.slots, record.start, record.end, record.task) == (("video", "audio"), 0.5, 1.0, "who")
    assert (record.needs, record.meta) == (("audio",), {"emotion": "sad"})
    assert record.messages[0] == ("user", QUESTION["value"])


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_still_fills_the_video_slot_and_sound_its_own(kind: str, media_root: Path) -> None:
    name = {"image": "still.png", "audio": "sound.wav"}[kind]
    record = parse_record(turns(f"<{kind}>\nWhat?", **{kind: name}), "1", media_root, "here")
    assert record.slots == ({"image": "video", "audio": "audio"}[kind],)
    assert record.without(record.slots).messages[0] == ("user", "What?")


def test_views(media_root: Path) -> None:
    record = parse_record(GOOD | {"needs": ["audio"]}, "7", media_root, "here")
    assert record.seen_as("video") is None, "the question cannot be answered without sound"
    heard = record.seen_as("audio")
    assert heard is not None
    assert (heard.slots, heard.messages[0][1]) == (("audio",), "<audio>\nWho?")
    assert record.seen_as("video_audio") == record
    closely = replace(record, needs=(), faces=(Sighting(0.0, ((1.0, 1.0, 5.0, 5.0),)),))
    forms = views_of(closely, ("video", "frames", "frames", "frames_audio"))
    assert [(form.slots, form.hides) for form in forms] == [
        (("video",), ()), (("video",), ("faces",)), (("video", "audio"), ("faces",))
    ]  # fmt: skip
    assert len({form.id for form in forms}) == 3
    forms = views_of(closely, ("faces", "video", "frames", "faces_audio", "audio"))
    assert [form.hides for form in forms] == [("frames",), (), ("faces",), ("frames",), ()]
    assert len({form.id for form in forms}) == 5, "the same slots, seen in other ways"
    assert heard.seen_as("faces") is None


def test_a_record_of_several_files(media_root: Path) -> None:
    raw = turns("<video>\n<audio>\nSame?", video="talk.mp4", sound="sound.wav", then="silent.mp4")
    record = parse_record(raw | {"rate": 5}, "1", media_root, "here")
    assert [file.name for file in record.files] == ["talk.mp4", "sound.wav", "silent.mp4"]
    assert (record.rate, record.meta) == (5.0, {})


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("line", [b'{"id": 1,}', b'{"id": "\xff"}', b"{'id': 1}", b'{"id": 1'])
def test_a_malformed_line_of_jsonl_is_skipped_with_its_number(line: bytes, tmp_path: Path, media_root: Path) -> None:
    good = json.dumps(GOOD).encode()
    path = write(tmp_path / "a.jsonl", b"\n".join([good, line, b"", good]))
    first, bad, last = read_records(path, media_root)
    assert isinstance(first, Record) and isinstance(last, Record)
    assert last.source.endswith("a.jsonl:4")
    assert bad[1].reason == "malformed_json"
    assert f"{path}:2" in str(bad[1])


def test_a_malformed_json_list_names_the_line(tmp_path: Path, media_root: Path) -> None:
    path = write(tmp_path / "a.json", f"[\n{json.dumps(GOOD)},\n{{oops}}\n]")
    with pytest.raises(ValueError, match=r"a\.json:3: malformed JSON.*use \.jsonl"):
        list(read_records(path, media_root))
    with pytest.raises(ValueError, match="UTF-8"):
        list(read_records(write(tmp_path / "b.json", b'["\xff"]'), media_root))


def test_a_json_list(tmp_path: Path, media_root: Path) -> None:
    good, bad = read_records(write(tmp_path / "a.json", json.dumps([GOOD, {"id": "8"}])), media_root)
    assert (good.id, good.source) == ("7", f"{tmp_path / 'a.json'}[0]")
    assert bad[0] == "8"
    assert "a.json[1]" in str(bad[1])


@pytest.mark.parametrize(("name", "text", "words"), [
    ("a.json", "{}", "one list of records"), ("a.csv", "x", "ends in"), ("gone.json", None, "no such data file"),
])  # fmt: skip
def test_a_file_that_is_no_data_file(name: str, text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(ValueError, match=words):
        list(read_records(tmp_path / name, tmp_path))
