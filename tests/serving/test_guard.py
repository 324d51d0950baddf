"""Requests that pass the guard of the page, and requests that it rejects."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from omnihuman.serving.guard import MAX_CALL, Guard, parse_origins

JOIN = "/gradio_api/queue/join"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that returns the body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOWALL")]})
    await send({"type": "http.response.body", "body": body})


def request(
    path: str,
    folder: Path,
    body: bytes | None = None,
    host: str = "localhost:7860",
    length: int | None = None,
    local: bool = True,
    kind: str = "http",
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> list[Message]:
    """Send a request, a POST if it has a body, and return the messages of the response; a length of -1 is omitted."""
    content = body or b""
    headers = [(b"host", host.encode()), *more]
    if body is not None and length != -1:
        headers.append((b"content-length", str(len(content) if length is None else length).encode()))
    half = len(content) // 2
    parts = [{"body": content[:half], "more_body": True}, {"body": content[half:], "more_body": False}]
    responses: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        responses.append(message)

    scope = {"type": kind, "path": path, "method": "GET" if body is None else "POST", "headers": headers}
    asyncio.run(Guard(echo, folder, 100, local)(scope, receive, send))
    return responses


def build_call(*paths: Any) -> bytes:
    return json.dumps({"data": [{"path": path, "meta": {}} for path in paths], "more": [[{"x": "y"}]]}).encode()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/config", 200),
        ("/assets/index.js", 200),
        ("/gradio_api/queue/data", 200),
        ("/gradio_api/heartbeat/abc", 200),
        ("/gradio_api/file=/a/b.mp4", 200),
        ("/gradio_api/file=/a/../b.mp4", 404),
        ("/gradio_api/file=http://a.b/", 404),
        ("/gradio_api/info", 404),
        ("/gradio_api/proxy=http://a.b/", 404),
        ("/gradio_api/call/ask", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
        ("/gradio_api", 404),
        ("/configx", 404),
    ],
)
def test_only_requests_of_the_page_pass(path: str, status: int, tmp_path: Path) -> None:
    assert request(path, tmp_path)[0]["status"] == status


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:1", 200), ("[::1]:1", 200), ("evil.example", 403), ("localhost.evil", 403), ("", 403)],
)
def test_only_loopback_hosts_pass_on_loopback(host: str, status: int, tmp_path: Path) -> None:
    assert request("/", tmp_path, host=host)[0]["status"] == status


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/upload"])
@pytest.mark.parametrize(
    ("more", "status"),
    [
        ((b"origin", b"http://evil.example"), 403),
        ((b"origin", b"null"), 403),
        ((b"sec-fetch-site", b"cross-site"), 403),
        ((b"origin", b"http://localhost:7860"), 200),
        ((b"sec-fetch-site", b"same-origin"), 200),
    ],
)
def test_calls_of_other_sites_are_rejected(path: str, more: tuple[bytes, bytes], status: int, tmp_path: Path) -> None:
    assert request(path, tmp_path, b"{}", more=(more,))[0]["status"] == status


def test_links_of_other_sites_open_the_page(tmp_path: Path) -> None:
    assert request("/", tmp_path, more=((b"sec-fetch-site", b"cross-site"),))[0]["status"] == 200


@pytest.mark.parametrize(("path", "statuses"), [(JOIN, [408]), ("/gradio_api/upload", [])])
def test_slow_bodies_end(path: str, statuses: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.serving.guard.MAX_CALL_SECONDS", 0.05)
    monkeypatch.setattr("omnihuman.serving.guard.MAX_UPLOAD_SECONDS", 0.05)
    responses: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        responses.append(message)

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        assert await Request(scope, receive).body()

    headers = [(b"host", b"localhost"), (b"content-length", b"9")]
    scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
    asyncio.run(Guard(read, tmp_path, 100, local=True)(scope, receive, send))
    assert [message["status"] for message in responses[:1]] == statuses


def test_any_host_passes_elsewhere(tmp_path: Path) -> None:
    assert request("/", tmp_path, host="evil.example", local=False)[0]["status"] == 200


def test_websockets_are_rejected(tmp_path: Path) -> None:
    assert request("/", tmp_path, kind="websocket")[0]["status"] == 404


def test_call_with_uploads_passes_unchanged(tmp_path: Path) -> None:
    body = build_call(str(tmp_path / "1" / "a.mp4"), None)
    start, content = request(JOIN, tmp_path, body)
    assert start["status"] == 200 and content["body"] == body


def test_call_with_other_files_is_rejected(tmp_path: Path) -> None:
    upload = str(tmp_path / "1" / "a.mp4")
    (tmp_path / "link").symlink_to("/etc")
    paths: list[Any] = [
        "/etc/passwd",
        f"{tmp_path}/../a.mp4",
        f"{tmp_path}/link/passwd",
        str(tmp_path),
        "",
        "http://a.b/a.mp4",
        7,
        {"path": upload},
        "a\0b",
    ]
    for path in paths:
        assert request(JOIN, tmp_path, build_call(upload, path))[0]["status"] == 403, path


def test_call_that_cannot_be_parsed_is_rejected(tmp_path: Path) -> None:
    deep = b'{"a":' * 20_000 + b'{"path":"/etc/passwd"}' + b"}" * 20_000
    for body in (b"not json", deep):
        assert request(JOIN, tmp_path, body)[0]["status"] == 403


@pytest.mark.parametrize(("path", "limit"), [(JOIN, MAX_CALL), ("/gradio_api/upload", MAX_CALL + 100)])
def test_bodies_above_the_limit_or_of_unknown_length_are_rejected(path: str, limit: int, tmp_path: Path) -> None:
    assert request(path, tmp_path, b"{}", length=limit + 1)[0]["status"] == 413
    assert request(path, tmp_path, b"{}", length=-1)[0]["status"] == 413
    assert request(path, tmp_path, b"{}", length=limit)[0]["status"] == 200


def test_responses_have_security_headers(tmp_path: Path) -> None:
    headers = dict(request("/", tmp_path)[0]["headers"])
    policy = headers[b"content-security-policy"]
    assert b"default-src 'self'" in policy and b"http" not in policy
    assert headers[b"x-frame-options"] == b"DENY" and b"X-Frame-Options" not in headers


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://a.example/b", "https://*.a", "", 5])
def test_entry_that_is_no_origin_raises(origin: Any) -> None:
    with pytest.raises(ValueError, match=r"cors: .*cors=\[https://app\.example\]"):
        parse_origins(["*", origin])
