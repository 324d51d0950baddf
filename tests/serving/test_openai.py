"""The handlers, with a pool that sends prepared replies."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request

from omnihuman.serving.openai import RequestLimits

PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
END = {"text": "!", "end": {"reason": "stop", "usage": USAGE, "more": {"weights": {}, "notes": [], "batch": 1}}}
Server = SimpleNamespace


def is_clean(server: Server) -> bool:
    """True if nothing of a request is left."""
    endpoint = server.endpoint
    return not (endpoint.num_pending or endpoint.num_bytes or server.pool.num_waiting or list(server.root.iterdir()))


def read_error(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_complete_answer(start_server: Any) -> None:
    server = start_server()
    response = server.client.post(PATH, json=BODY | {"model": "net", "max_tokens": 3})
    assert response.status_code == 200 and response.json()["choices"][0]["message"]["content"] == "!"
    assert response.json()["usage"] == USAGE and server.questions[0].generation_kwargs == {"max_new_tokens": 3}
    assert is_clean(server)


def test_models_are_listed(start_server: Any) -> None:
    client = start_server().client
    assert client.get("/v1/models").json()["data"] == [client.get("/v1/models/net").json()]
    assert read_error(client.get("/v1/models/other")) == (404, "model_not_found")


def test_streamed_answer(start_server: Any) -> None:
    server = start_server([{"text": "Oh"}, END])
    response = server.client.post(PATH, json=BODY | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in response.text.split("\n\n")[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Oh!"
    assert is_clean(server)


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        ({"error": {"code": "corrupt", "message": "messages: cut off", "status": 400}}, 400, "corrupt"),
        (None, 500, "server_error"),  # the process has crashed
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_error_of_the_model_sets_the_status(
    reply: Any, status: int, code: str, stream: bool, start_server: Any
) -> None:
    server = start_server([reply])
    assert read_error(server.client.post(PATH, json=BODY | {"stream": stream})) == (status, code)
    assert is_clean(server)


def test_error_within_a_stream_is_its_last_event(start_server: Any) -> None:
    error = {"error": {"code": "server_error", "message": "no", "status": 500}}
    server = start_server([{"text": "Oh"}, error])
    lines = server.client.post(PATH, json=BODY | {"stream": True}).text.split("\n\n")
    assert json.loads(lines[1][6:])["error"]["code"] == "server_error" and "[DONE]" not in lines[-2]
    assert is_clean(server)


def test_late_answer_is_a_timeout(start_server: Any) -> None:
    server = start_server([], RequestLimits(max_seconds=0.1))
    assert read_error(server.client.post(PATH, json=BODY)) == (504, "timeout") and is_clean(server)


def test_too_many_pending_requests_are_rejected(start_server: Any) -> None:
    server = start_server(limits=RequestLimits(max_pending_requests=0))
    response = server.client.post(PATH, json=BODY)
    assert read_error(response) == (503, "overloaded") and response.headers["retry-after"] == "1"
    assert is_clean(server)


def test_too_large_bodies_are_rejected(start_server: Any) -> None:
    server = start_server(limits=RequestLimits(max_body=10_000))
    chunked = server.client.post(
        PATH, content=(b"x" * 1000 for _ in range(20)), headers=JSON
    )  # without a content length
    assert read_error(chunked) == (413, "too_large")
    response = server.client.post(PATH, content=b"x" * 10_001, headers=JSON)
    assert response.status_code == 413 and "10001 bytes; at most 10000" in response.json()["error"]["message"]
    server.endpoint.num_bytes = 40_000  # of other requests
    assert read_error(server.client.post(PATH, json=BODY)) == (503, "overloaded")
    server.endpoint.num_bytes = 0
    assert is_clean(server) and not server.questions


def test_invalid_requests_do_not_reach_the_model(start_server: Any, corpus: Path) -> None:
    clip = next(iter(sorted((corpus / "media").glob("*.mp4"))))
    server = start_server(limits=RequestLimits(allow=[str(corpus / "media")]))

    def post(url: str) -> Any:
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "Who?"}]
        return server.client.post(PATH, json={"messages": [{"role": "user", "content": content}]})

    assert post(str(clip)).status_code == 200 and server.questions.pop().record.file == clip
    assert read_error(post(str(corpus / "train.json"))) == (400, "url_not_allowed")
    assert server.client.post(PATH, content=b"{", headers=JSON).status_code == 400
    assert server.client.post(PATH, json=BODY | {"model": "other"}).status_code == 404
    assert server.client.get("/nowhere").json()["error"]["message"] == "Not Found"
    assert is_clean(server) and not server.questions


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        JSON | {"origin": "http://evil.example"},
        JSON | {"origin": "null"},
        JSON | {"origin": "http://["},
        JSON | {"origin": "http://127.0.0.1:9000"},
        JSON | {"sec-fetch-site": "cross-site"},
        JSON | {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1"},
    ],
)
def test_requests_of_other_sites_are_rejected(headers: dict[str, str], start_server: Any) -> None:
    server = start_server()
    response = server.client.post(PATH, content=json.dumps(BODY), headers=headers)
    assert read_error(response) in ((415, "unsupported_media_type"), (403, "cross_site"))
    assert is_clean(server) and not server.questions


@pytest.mark.parametrize("more", [{}, {"origin": "http://127.0.0.1"}, {"sec-fetch-site": "same-origin"}])
def test_requests_of_the_same_site_and_of_programs_are_answered(more: dict[str, str], start_server: Any) -> None:
    headers = {"content-type": "application/json; charset=utf-8", **more}
    response = start_server().client.post(PATH, content=json.dumps(BODY), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "option",
    [
        '"temperature": 1e-300',
        '"temperature": NaN',
        '"temperature": Infinity',
        '"temperature": -1',
        '"temperature": 5e-324',
        '"top_p": -0.1',
        '"top_p": NaN',
        '"top_p": 1.5',
        '"top_k": 0',
        '"top_k": 1e300',
        '"repetition_penalty": 1e-300',
        '"repetition_penalty": 1e300',
        '"repetition_penalty": NaN',
        '"max_tokens": 0',
        '"max_tokens": 1e300',
        '"max_tokens": 10000000000000000000000',
        '"max_completion_tokens": -1',
        '"seed": -1',
        '"seed": 1e30',
    ],
)
def test_generation_options_out_of_range_are_rejected(option: str, start_server: Any) -> None:
    server = start_server()
    body = f'{{"messages": [{{"role": "user", "content": "Hi"}}], {option}}}'
    response = server.client.post(PATH, content=body, headers=JSON)
    assert read_error(response) == (400, "bad_request")
    assert response.json()["error"]["param"] == option.split('"')[1]
    assert is_clean(server) and not server.questions


def build_slow_request() -> Request:
    """Return a request whose body never comes to its end."""
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if pieces:
            return pieces.pop()
        return await asyncio.Event().wait()

    headers = [(name.encode(), value.encode()) for name, value in JSON.items()]
    return Request({"type": "http", "method": "POST", "path": PATH, "headers": headers}, receive)


def test_slow_bodies_take_no_place_and_end(start_server: Any) -> None:
    server = start_server(limits=RequestLimits(max_pending_requests=1, max_body_seconds=1.0))

    async def send_many() -> list[Any]:
        tasks = [asyncio.create_task(server.endpoint.complete(build_slow_request())) for _ in range(128)]
        while server.endpoint.num_bytes < 128:
            await asyncio.sleep(0.01)
        assert server.endpoint.num_pending == 0
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(send_many())
    assert {(error.status, error.code) for error in errors} == {(408, "timeout")}
    assert is_clean(server) and not server.questions


def test_other_host_names_are_rejected_on_loopback(start_server: Any) -> None:
    server = start_server()
    response = server.client.post(PATH, json=BODY, headers={"host": "evil.example"})
    assert response.status_code == 400 and not server.questions
