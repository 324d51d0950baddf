"""What a page may be asked for, and by whom: everything else is not there."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnihuman.serving.process import LOOPBACK

PAGE = {"/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt"}
PARTS = ("/assets/", "/static/", "/svelte/")
CALLS = ("startup-events", "queue/join", "queue/data", "upload", "upload_progress", "heartbeat/", "cancel", "file=")
"""What a page of Gradio asks its own server for; not its API, its docs, its proxy to other servers."""

LARGEST_CALL = 2**20
"""Bytes of what the page tells its server, uploads aside."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; object-src 'none'; frame-ancestors 'none'; base-uri 'self'; "
        "form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""The browser is told to ask nobody else, whatever an answer of the model holds."""


class Guard:
    """An ASGI application behind a list of what it may be asked for.

    Args:
        inner: the application.
        uploads: folder of the files that a call may name.
        largest: bytes of an upload.
        local: answer those only who call this machine by a name of the loopback: another page in the same browser
            may have pointed a name of its own at it.
    """

    def __init__(self, inner: ASGIApp, uploads: Path, largest: int, local: bool) -> None:
        self.inner, self.uploads, self.largest, self.local = inner, uploads.resolve(), largest, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        path, body = str(scope["path"]), b""
        if scope["type"] != "http" or not is_part(path):
            await _refuse(send, 404)
        elif self.local and host_of(scope) not in LOOPBACK:
            await _refuse(send, 403)
        elif scope["method"] == "POST" and not 0 <= length_of(scope) <= self._most(path):
            await _refuse(send, 413)
        else:
            if scope["method"] == "POST" and not path.endswith("/upload"):
                body = await _whole(receive)
                if not self._names_uploads(body):
                    await _refuse(send, 403)
                    return
                receive = _again(body, receive)
            # an upload that was deleted while it was sent; 500 has been answered
            gone = (FileNotFoundError, RuntimeError) if "/file=" in path else ()
            with suppress(*gone):
                await self.inner(scope, receive, _with_headers(send))

    def _most(self, path: str) -> int:
        return self.largest + LARGEST_CALL if path.endswith("/upload") else LARGEST_CALL

    def _names_uploads(self, body: bytes) -> bool:
        """Whether every file that a call names was uploaded; Gradio would copy others, or fetch them from elsewhere."""
        try:
            named = list(_paths(json.loads(body or b"null")))
            return all(self.uploads in Path(str(path)).resolve().parents for path in named)
        except (ValueError, OSError, RecursionError, RuntimeError):
            return False


def _paths(node: Any) -> Iterator[Any]:
    """Every ``path`` in a JSON value."""
    inner = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    if isinstance(node, dict) and node.get("path") is not None:
        yield node["path"]
    for one in inner:
        yield from _paths(one)


def is_part(path: str) -> bool:
    """Whether a path is one that the page itself asks for.

    >>> is_part("/gradio_api/queue/join"), is_part("/gradio_api/info"), is_part("/gradio_api/file=http://other/")
    (True, False, False)
    """
    if path in PAGE or path.startswith(PARTS):
        return True
    call = path.removeprefix("/gradio_api/")
    if call == path:
        return False
    if call.startswith("file="):  # of another server there is none
        return "://" not in call and ".." not in call.split("/") and "\0" not in call
    return call in CALLS or call.startswith("heartbeat/")


def host_of(scope: Scope) -> str:
    """The name by which a request calls this machine, without the port.

    >>> host_of({"headers": [(b"host", b"[::1]:7860")]}), host_of({"headers": [(b"host", b"evil.example:7860")]})
    ('::1', 'evil.example')
    """
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def length_of(scope: Scope) -> int:
    """Bytes that a request says it has, -1 where it does not say.

    >>> length_of({"headers": [(b"content-length", b"12")]}), length_of({"headers": []})
    (12, -1)
    """
    said = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(said) if said.isdigit() else -1


async def _whole(receive: Receive) -> bytes:
    """The body of a request whose length was checked."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read again; then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.decode().lower() not in HEADERS]
            message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        await send(message)

    return sent


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Not here."})
