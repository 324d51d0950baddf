"""Bodies of requests and of answers."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.serving.completions import (
    Asked,
    Question,
    chunks,
    completion,
    error_body,
    question_of,
    read_request,
)
from omnihuman.serving.uploads import Limits, Refused, Uploads


@pytest.fixture
def clip(corpus: Path) -> Path:
    return next(iter(sorted((corpus / "media").glob("train_talk*.mp4"))))


def body(content: Any = "Who?", **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()


def question(folder: Path, *, allow: Any = (), sent: bytes = body()) -> Question:
    return question_of(read_request(sent, "net"), Uploads(Limits(), allow), folder, 10, 100, 1000)


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (b"{", "bad_request", "the body: Invalid JSON"),
        (b"[1]", "bad_request", "the body"),
        (b'{"messages": []}', "bad_request", "messages"),
        (b'{"messages": [{"content": "Who?"}]}', "bad_request", "messages.0.role"),
        (body(7), "bad_request", "messages.0.content"),
        (body(model="gpt-4o"), "model_not_found", "'gpt-4o' is not served here; 'net' is"),
        (body(n=2), "unsupported_option", "n: 2"),
        (body(logprobs=True), "unsupported_option", "logprobs"),
        (body(tools=[{"type": "function"}]), "unsupported_option", "tools"),
        (body(response_format={"type": "json_object"}), "unsupported_option", "response_format"),
        (body(presence_penalty=0.5), "unsupported_option", "presence_penalty"),
        (body(temperature=3), "bad_request", "temperature"),
        (body(top_p=-0.1), "bad_request", "top_p"),
        (body(max_tokens=0), "bad_request", "max_tokens"),
        (body(modal="smell"), "bad_request", "'smell'; choose from video_audio"),
    ],
)
def test_what_cannot_be_asked_is_named(sent: bytes, code: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        read_request(sent, "net")
    assert refused.value.code == code and words in str(refused.value)
    assert refused.value.status == (404 if code == "model_not_found" else 400)


def test_values_that_ask_for_nothing_are_no_options() -> None:
    asked = read_request(
        body(n=1, logprobs=False, tools=None, response_format={"type": "text"}, model="net", presence_penalty=0.0),
        "net",
    )
    assert asked.model == "net"


def test_a_request_becomes_a_question(clip: Path, tmp_path: Path) -> None:
    sound = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(clip.read_bytes()).decode(), "format": "wav"},
    }
    content = [
        {"type": "text", "text": "<video>\nWho speaks?"},
        {"type": "video_url", "video_url": {"url": str(clip)}},
        sound,
    ]
    sent = body(
        content, max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop="x", stream=True, modal="audio", user="me"
    )
    made = question(tmp_path, allow=[clip.parent], sent=sent)
    assert made.how == {"max_new_tokens": 7, "do_sample": True, "temperature": 0.5, "top_p": 0.9}
    assert (made.seed, made.stops, made.stream, made.modal, made.record.meta) == (3, ("x",), True, "audio", {})
    assert made.record.messages == (("user", "<video>\n<audio>\nWho speaks?"), ("assistant", ""))
    assert made.record.file == clip and made.record.sound is not None and made.record.sound.parent == tmp_path
    assert made.notes == ("not heeded: user",)


def test_turns_and_the_system_message(clip: Path, tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": str(clip)}, {"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": "Ann"},
        {"role": "user", "content": "And now?"},
    ]
    made = question(tmp_path, allow=[clip.parent], sent=json.dumps({"messages": messages}).encode())
    assert made.record.meta == {"system": "Be kind."} and made.how == {"max_new_tokens": 10}
    assert [role for role, _ in made.record.messages] == ["user", "assistant", "user", "assistant"]
    for wrong in (messages[:1], messages[:3], messages[2:]):
        with pytest.raises(Refused, match="messages: a conversation is of user and assistant in turns"):
            question(tmp_path, allow=[clip.parent], sent=json.dumps({"messages": wrong}).encode())


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (body(max_tokens=101), "max_tokens: 101; at most 100"),
        (body(stop=["a"] * 17), "stop"),
        (body(stop=""), "stop"),
        (body("x" * 1001), "1001 characters; at most 1000"),
        (body(" "), "neither text nor a medium"),
        (body([{"type": "banana"}]), "messages.0.content.0: a part is text, image_url, video_url"),
        (body([{"type": "video_url", "image_url": "data:;base64,"}]), "messages.0.content.0: a part is text"),
        (
            body([{"type": "video_url", "video_url": "http://x/y.mp4"}]),
            "messages.0.content.0: 'http://x/y.mp4' is neither",
        ),
    ],
)
def test_what_the_model_cannot_have_is_named(sent: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        question(tmp_path, sent=sent)
    assert words in str(refused.value)


def test_a_second_medium_of_a_kind_is_not_even_kept(clip: Path, tmp_path: Path) -> None:
    part = {"type": "video_url", "video_url": {"url": "data:;base64," + base64.b64encode(clip.read_bytes()).decode()}}
    with pytest.raises(Refused, match=r"messages\.0\.content\.1: the model takes one video"):
        question(tmp_path, sent=body([part, part]))
    assert len(list(tmp_path.iterdir())) == 1


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
END = {"reason": "length", "usage": USAGE, "more": {"weights": {}, "notes": []}}


def test_a_whole_answer() -> None:
    made = completion("net", {"text": "A face.", "end": END})
    assert made["choices"][0]["message"] == {"role": "assistant", "content": "A face."}
    assert (made["choices"][0]["finish_reason"], made["usage"], made["model"]) == ("length", USAGE, "net")
    assert made["omnihuman"] == END["more"]


def test_events_of_an_answer() -> None:
    asked = Asked(messages=[{"role": "user", "content": "Who?"}], stream_options={"include_usage": True})  # type: ignore[list-item]
    made = chunks("net", asked)
    lines = "".join(made.of(said) for said in ({"text": "A"}, {"text": " face"}, {"text": "", "end": END})).split(
        "\n\n"
    )
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    deltas = [one["choices"][0]["delta"] for one in events if one["choices"]]
    assert deltas == [{"role": "assistant", "content": "A"}, {"content": " face"}, {}]
    assert [one["choices"][0]["finish_reason"] for one in events[:-1]] == [None, None, "length"]
    assert events[-1]["usage"] == USAGE and len({one["id"] for one in events}) == 1


def test_an_error_as_clients_read_it() -> None:
    assert error_body(Refused("overloaded", "come again", 503))["error"]["type"] == "server_error"
    assert error_body(Refused("bad_request", "stop: give texts"))["error"]["param"] == "stop"
    assert error_body(Refused("bad_request", "the body: no"))["error"]["param"] is None
