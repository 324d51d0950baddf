"""The endpoint, with a worker that says what a test wants said."""

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from litserve.utils import LitAPIStatus

from omnihuman.serving.openai import Rules, make_server

PATH = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
END = {"text": "!", "end": {"reason": "stop", "usage": USAGE, "more": {"weights": {}, "notes": []}}}
Made = SimpleNamespace


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """A client of a server whose worker says these messages to every question."""
    # LitServe asks whether `predict` is a generator, which beartype's wrapper of the tests hides
    told = {"isgeneratorfunction": lambda function: True, "isasyncgenfunction": inspect.isasyncgenfunction}
    monkeypatch.setattr("litserve.specs.openai.inspect", SimpleNamespace(**told))

    def make(said: Sequence[Any] = (END,), rules: Rules | None = None, **options: Any) -> Made:
        root = tmp_path / "root"
        root.mkdir()
        server = make_server(tmp_path / "net", root, rules=rules, accelerator="cpu", **options)
        spec, asked = server.lit_api.spec, list[Any]()

        def put(item: Any) -> None:
            asked.append(item[-1])
            assert asked[-1].folder.is_dir()
            waiting = spec.response_buffer[item[1]]
            for message in said:
                status = LitAPIStatus.OK if isinstance(message, dict) else message
                waiting.response_queue.append((json.dumps(message), status))
            waiting.event.set()

        spec.response_buffer, spec.request_queue = {}, SimpleNamespace(put=put)
        client = TestClient(server.app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        return Made(client=client, spec=spec, asked=asked, root=root)

    return make


def clean(made: Made) -> bool:
    return not (made.spec.waiting or made.spec.held or made.spec.response_buffer or list(made.root.iterdir()))


def test_an_answer(made: Any) -> None:
    net = made()
    reply = net.client.post(PATH, json=HI | {"model": "net", "max_tokens": 3})
    assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == "!"
    assert reply.json()["usage"] == USAGE and net.asked[0].how == {"max_new_tokens": 3}
    assert clean(net)
    assert net.client.get("/v1/models").json()["data"] == [net.client.get("/v1/models/net").json()]
    assert net.client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


def test_a_streamed_answer(made: Any) -> None:
    net = made([{"text": "Oh"}, END])
    reply = net.client.post(PATH, json=HI | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream") and reply.text.endswith("data: [DONE]\n\n")
    pieces = [json.loads(line[6:]) for line in reply.text.split("\n\n")[:-2]]
    assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == "Oh!"
    assert clean(net)


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"error": {"code": "corrupt", "message": "messages: cut off", "status": 400}}, 400, "corrupt"),
        (LitAPIStatus.ERROR, 500, "server_error"),
        (LitAPIStatus.FINISH_STREAMING, 500, "server_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_worker(said: Any, status: int, code: str, stream: bool, made: Any) -> None:
    net = made([said])
    reply = net.client.post(PATH, json=HI | {"stream": stream})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code) and clean(net)


def test_an_error_amid_an_answer(made: Any) -> None:
    net = made([{"text": "Oh"}, {"error": {"code": "server_error", "message": "no", "status": 500}}])
    lines = net.client.post(PATH, json=HI | {"stream": True}).text.split("\n\n")
    assert json.loads(lines[1][6:])["error"]["code"] == "server_error" and "[DONE]" not in lines[-2] and clean(net)


def test_nobody_waits_longer_than_is_allowed(made: Any) -> None:
    net = made([], Rules(seconds=0.1))
    reply = net.client.post(PATH, json=HI)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout") and clean(net)


def test_a_full_house_says_come_again(made: Any) -> None:
    net = made(rules=Rules(waiting=0))
    reply = net.client.post(PATH, json=HI)
    assert (reply.status_code, reply.json()["error"]["code"], reply.headers["retry-after"]) == (503, "overloaded", "1")
    assert clean(net)


def test_a_body_that_is_too_large_is_refused(made: Any) -> None:
    net = made(rules=Rules(body=10_000))
    reply = net.client.post(PATH, content=(b"x" * 1000 for _ in range(20)))  # whose length nobody tells
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    reply = net.client.post(PATH, content=b"x" * 10_001)
    assert reply.status_code == 413 and "10001 bytes; at most 10000" in reply.json()["error"]["message"]
    net.spec.held = 40_000  # what others send just now
    assert net.client.post(PATH, json=HI).json()["error"]["code"] == "overloaded"
    net.spec.held = 0
    assert clean(net) and not net.asked


def test_what_cannot_be_asked_does_not_reach_the_worker(made: Any, corpus: Path) -> None:
    clip = next(iter(sorted((corpus / "media").glob("*.mp4"))))
    net = made(rules=Rules(allow=[str(corpus / "media")]))

    def post(url: str) -> Any:
        return net.client.post(PATH, json={"messages": [{"role": "user", "content": [
            {"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "Who?"}
        ]}]})  # fmt: skip

    assert post(str(clip)).status_code == 200 and net.asked.pop().record.file == clip
    assert post(str(corpus / "train.json")).json()["error"]["code"] == "url_not_allowed"
    assert net.client.post(PATH, content=b"{").status_code == 400
    assert net.client.post(PATH, json=HI | {"model": "other"}).status_code == 404
    assert net.client.get("/nowhere").json()["error"]["message"] == "Not Found"
    assert clean(net) and not net.asked


def test_a_key_is_asked_for_before_a_body_is_read(made: Any) -> None:
    net = made(api_key="s3cret")

    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    reply = net.client.post(PATH, content=body())
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert net.client.get("/v1/models").status_code == 401
    assert net.client.post(PATH, json=HI, headers={"authorization": "Bearer s3cret"}).status_code == 200


def test_on_loopback_it_answers_to_no_other_name(made: Any) -> None:
    net = made()
    assert net.client.post(PATH, json=HI, headers={"host": "evil.example"}).status_code == 400 and not net.asked
