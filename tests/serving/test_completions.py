"""Request bodies become questions, replies become response bodies."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnihuman.modality import View
from omnihuman.serving.choices import Choices
from omnihuman.serving.completions import (
    ChunkEncoder,
    Question,
    build_completion,
    build_error_body,
    build_question,
    parse_request,
)
from omnihuman.serving.uploads import Limits, RequestError, Uploads


@pytest.fixture
def clip(corpus: Path) -> Path:
    return next(iter(sorted((corpus / "media").glob("train_talk*.mp4"))))


def build_body(content: Any = "Who?", **options: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}], **options}).encode()


def build(folder: Path, body: bytes, allow: Any = ()) -> Question:
    return build_question(
        parse_request(body, "net"),
        Uploads(Limits(), allow),
        folder,
        max_new_tokens=10,
        max_request_tokens=100,
        max_characters=1000,
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", "bad_request", "the body: Invalid JSON"),
        (b"[1]", "bad_request", "the body"),
        (b'{"messages": []}', "bad_request", "messages"),
        (b'{"messages": [{"content": "Who?"}]}', "bad_request", "messages.0.role"),
        (build_body(7), "bad_request", "messages.0.content"),
        (build_body(model="gpt-4o"), "model_not_found", "model: 'gpt-4o'"),
        (build_body(n=2), "unsupported_option", "n: 2 is not supported"),
        (build_body(logprobs=True), "unsupported_option", "logprobs"),
        (build_body(structured_outputs={"regex": "a"}), "unsupported_option", "structured_outputs"),
        (build_body(structured_outputs={"choice": ["a"]}), "bad_request", "structured_outputs.choice"),
        (build_body(response_format={"type": "choice"}), "bad_request", "response_format.choices"),
        (build_body(response_format="text"), "bad_request", "response_format"),
        (build_body(guided_choice=["a", "b"]), "unsupported_option", "guided_choice"),
        (build_body(tools=[{"type": "function"}]), "unsupported_option", "tools"),
        (build_body(response_format={"type": "json_object"}), "unsupported_option", "response_format"),
        (build_body(presence_penalty=0.5), "unsupported_option", "presence_penalty"),
        (build_body(temperature=3), "bad_request", "temperature"),
        (build_body(top_p=-0.1), "bad_request", "top_p"),
        (build_body(max_tokens=0), "bad_request", "max_tokens"),
        (build_body(view="smell"), "bad_request", "view: smell: unknown view"),
    ],
)
def test_invalid_requests_raise(body: bytes, code: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(body, "net")
    assert caught.value.code == code and message in str(caught.value)
    assert caught.value.status == (404 if code == "model_not_found" else 400)


def test_neutral_values_of_unsupported_options_are_accepted() -> None:
    neutral = {"n": 1, "logprobs": False, "tools": None, "response_format": {"type": "text"}, "presence_penalty": 0.0}
    assert parse_request(build_body(model="net", **neutral), "net").model == "net"


def test_request_becomes_a_question(clip: Path, tmp_path: Path) -> None:
    audio = {"data": base64.b64encode(clip.read_bytes()).decode(), "format": "wav"}
    content = [
        {"type": "text", "text": "<video>\nWho speaks?"},
        {"type": "video_url", "video_url": {"url": str(clip)}},
        {"type": "input_audio", "input_audio": audio},
    ]
    options = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": "x", "stream": True}
    question = build(tmp_path, build_body(content, view="audio", user="me", **options), allow=[clip.parent])
    expected = {"max_new_tokens": 7, "do_sample": True, "temperature": 0.5, "top_p": 0.9}
    assert question.generation_kwargs == expected
    assert (question.seed, question.stops, question.stream, question.view) == (3, ("x",), True, View("A"))
    record = question.record
    assert record.messages == (("user", "<video>\n<audio>\nWho speaks?"), ("assistant", ""))
    assert record.file == clip and record.meta == {}
    assert record.audio_track is not None and record.audio_track.parent == tmp_path
    assert question.notes == ("ignored: user",)


def test_images_stay_in_the_order_of_their_parts(tmp_path: Path) -> None:
    parts: list[dict[str, Any]] = []
    for shade in (10, 200, 90):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), shade).save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        parts += [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": f"Is it {shade}?"}]
    record = build(tmp_path, build_body(parts)).record
    shades = [Image.open(file).getpixel((0, 0)) for file in (record.file, *record.more_images)]
    assert shades == [10, 200, 90] and record.kind == "image"
    assert record.messages[0][1] == "<image>\nIs it 10?\n<image>\nIs it 200?\n<image>\nIs it 90?"


CHOICE = {"type": "choice", "choices": ["happy", "sad"]}


def test_choices_become_part_of_the_question(tmp_path: Path) -> None:
    for options in ({"response_format": CHOICE}, {"structured_outputs": {"choice": CHOICE["choices"]}}):
        question = build(tmp_path, build_body(**options))
        assert question.choices == Choices(("happy", "sad")) and not question.notes


def test_generation_options_of_choices_are_reported(tmp_path: Path) -> None:
    question = build(tmp_path, build_body(response_format=CHOICE, temperature=1, stop="h", max_tokens=1, user="me"))
    assert question.notes == ("ignored: user, max_tokens, stop, temperature",) and question.stops == ()


def test_system_message_and_turns_become_the_record(clip: Path, tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": str(clip)}, {"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": "Ann"},
        {"role": "user", "content": "And now?"},
    ]
    question = build(tmp_path, json.dumps({"messages": messages}).encode(), allow=[clip.parent])
    assert question.record.meta == {"system": "Be kind."} and question.generation_kwargs == {"max_new_tokens": 10}
    assert [role for role, _ in question.record.messages] == ["user", "assistant", "user", "assistant"]
    for invalid in (messages[:1], messages[:3], messages[2:]):
        with pytest.raises(RequestError, match="messages: user and assistant"):
            build(tmp_path, json.dumps({"messages": invalid}).encode(), allow=[clip.parent])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (build_body(max_tokens=101), "max_tokens: 101 exceeds"),
        (build_body(stop=["a"] * 17), "stop"),
        (build_body(stop=""), "stop"),
        (build_body("x" * 1001), "1001 characters"),
        (build_body(" "), "neither text"),
        (build_body([{"type": "banana"}]), "text, image_url, video_url"),
        (build_body([{"type": "video_url", "image_url": "data:;base64,"}]), "messages.0.content.0: expected a part"),
        (build_body([{"type": "video_url", "video_url": "http://x/y.mp4"}]), "'http://x/y.mp4' is neither"),
    ],
)
def test_requests_beyond_the_limits_or_the_model_raise(body: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        build(tmp_path, body)
    assert message in str(caught.value)


def test_second_medium_of_a_kind_is_not_saved(clip: Path, tmp_path: Path) -> None:
    url = "data:;base64," + base64.b64encode(clip.read_bytes()).decode()
    part = {"type": "video_url", "video_url": {"url": url}}
    with pytest.raises(RequestError, match=r"messages\.0\.content\.1: .*one video"):
        build(tmp_path, build_body([part, part]))
    assert len(list(tmp_path.iterdir())) == 1


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
END = {"reason": "length", "usage": USAGE, "more": {"weights": {}, "notes": []}}


def test_complete_answer() -> None:
    body = build_completion("net", {"text": "A face.", "end": END})
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "A face."}
    assert (body["choices"][0]["finish_reason"], body["usage"], body["model"]) == ("length", USAGE, "net")
    assert body["omnihuman"] == END["more"]


def test_streamed_answer() -> None:
    encoder = ChunkEncoder("net", with_usage=True)
    replies = ({"text": "A"}, {"text": " face"}, {"text": "", "end": END})
    lines = "".join(encoder.encode(reply) for reply in replies).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    *chunks, usage = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [{"role": "assistant", "content": "A"}, {"content": " face"}, {}]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "length"]
    assert usage["usage"] == USAGE and {chunk["id"] for chunk in chunks} == {usage["id"]}


def test_errors_have_the_form_of_openai() -> None:
    assert build_error_body(RequestError("overloaded", "try again", 503))["error"]["type"] == "server_error"
    assert build_error_body(RequestError("bad_request", "stop: expected texts"))["error"]["param"] == "stop"
    assert build_error_body(RequestError("bad_request", "the body: no"))["error"]["param"] is None
