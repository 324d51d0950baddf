"""What a page may be asked for."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from omnihuman.serving.guard import LARGEST_CALL, Guard


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOWALL")]})
    await send({"type": "http.response.body", "body": body})


def asked(
    path: str, folder: Path, body: bytes | None = None, host: str = "localhost:7860", length: int | None = None,
    local: bool = True, kind: str = "http",
) -> list[Message]:  # fmt: skip
    headers = [(b"host", host.encode())]
    if body is not None and length != -1:
        headers.append((b"content-length", str(len(body) if length is None else length).encode()))
    half = len(body or b"") // 2
    parts = [{"body": (body or b"")[:half], "more_body": True}, {"body": (body or b"")[half:], "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "method": "GET" if body is None else "POST", "headers": headers}
    asyncio.run(Guard(echo, folder, 100, local)(scope, receive, send))
    return sent


def call(*named: Any) -> bytes:
    return json.dumps({"data": [{"path": one, "meta": {}} for one in named], "more": [[{"x": "y"}]]}).encode()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200), ("/config", 200), ("/assets/index.js", 200), ("/gradio_api/queue/data", 200),
        ("/gradio_api/heartbeat/abc", 200), ("/gradio_api/file=/a/b.mp4", 200), ("/gradio_api/file=/a/../b.mp4", 404),
        ("/gradio_api/file=http://a.b/", 404), ("/gradio_api/info", 404), ("/gradio_api/proxy=http://a.b/", 404),
        ("/gradio_api/call/ask", 404), ("/docs", 404), ("/openapi.json", 404), ("/gradio_api", 404), ("/configx", 404),
    ],
)  # fmt: skip
def test_only_what_the_page_needs_is_there(path: str, status: int, tmp_path: Path) -> None:
    assert asked(path, tmp_path)[0]["status"] == status


def test_names_of_others_for_this_machine_are_not_answered(tmp_path: Path) -> None:
    for host, status in (
        ("127.0.0.1:1", 200),
        ("[::1]:1", 200),
        ("evil.example", 403),
        ("localhost.evil", 403),
        ("", 403),
    ):
        assert asked("/", tmp_path, host=host)[0]["status"] == status
    assert asked("/", tmp_path, host="evil.example", local=False)[0]["status"] == 200
    assert asked("/", tmp_path, kind="websocket")[0]["status"] == 404


def test_a_call_may_name_uploads_alone(tmp_path: Path) -> None:
    join, mine = "/gradio_api/queue/join", str(tmp_path / "1" / "a.mp4")
    given = call(mine, None)
    answered = asked(join, tmp_path, given)
    assert answered[0]["status"] == 200 and answered[1]["body"] == given  # read once, and handed on whole
    (tmp_path / "link").symlink_to("/etc")
    others = [
        "/etc/passwd",
        f"{tmp_path}/../a.mp4",
        f"{tmp_path}/link/passwd",
        str(tmp_path),
        "",
        "http://a.b/a.mp4",
        7,
    ]
    for other in [*others, {"path": mine}, "a\0b"]:
        assert asked(join, tmp_path, call(mine, other))[0]["status"] == 403, other
    deep = b'{"a":' * 20_000 + b'{"path":"/etc/passwd"}' + b"}" * 20_000
    for body in (b"not json", deep):
        assert asked(join, tmp_path, body)[0]["status"] == 403


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    for path, most in (("/gradio_api/queue/join", LARGEST_CALL), ("/gradio_api/upload", LARGEST_CALL + 100)):
        assert asked(path, tmp_path, b"{}", length=most + 1)[0]["status"] == 413
        assert asked(path, tmp_path, b"{}", length=-1)[0]["status"] == 413
        assert asked(path, tmp_path, b"{}", length=most)[0]["status"] == 200


def test_the_browser_is_told_to_ask_nobody_else(tmp_path: Path) -> None:
    headers = dict(asked("/", tmp_path)[0]["headers"])
    assert (
        b"default-src 'self'" in headers[b"content-security-policy"]
        and b"http" not in headers[b"content-security-policy"]
    )
    assert headers[b"x-frame-options"] == b"DENY" and b"X-Frame-Options" not in headers
