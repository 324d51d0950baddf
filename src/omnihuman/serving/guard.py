"""A filter in front of the page: only the requests that the page itself sends, and only from allowed hosts."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnihuman.serving.process import LOOPBACK

PAGE = {"/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt"}
ASSETS = ("/assets/", "/static/", "/svelte/")
CALLS = ("startup-events", "queue/join", "queue/data", "upload", "upload_progress", "heartbeat/", "cancel", "file=")
"""Paths that a Gradio page requests from its server; its API, its docs and its proxy are not among them."""

ORIGIN = re.compile(r"https?://[^/?#@*\s]+", re.IGNORECASE)

MAX_CALL = 2**20
"""Largest body of a request in bytes, uploads excepted."""

MAX_CALL_SECONDS, MAX_UPLOAD_SECONDS = 30.0, 600.0
"""Longest time until the body of a request is in."""

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
"""Security headers: the browser requests nothing from other servers, whatever an answer of the model contains."""


class Guard:
    """An ASGI application behind a filter.

    Args:
        inner: the application.
        uploads: folder of the files that a call may name.
        max_upload: largest upload in bytes.
        local: accept only requests that name this machine by a loopback name; a web page in the same browser may have
            pointed a domain name of its own at this machine (DNS rebinding).
    """

    def __init__(self, inner: ASGIApp, uploads: Path, max_upload: int, local: bool) -> None:
        self.inner, self.uploads, self.max_upload, self.local = inner, uploads.resolve(), max_upload, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        status = self._check(scope)
        path = str(scope["path"])
        is_upload = path.endswith("/upload")
        if status == 200 and scope["method"] == "POST" and is_upload:
            receive = _limit_seconds(receive, MAX_UPLOAD_SECONDS)
        elif status == 200 and scope["method"] == "POST":
            try:
                async with asyncio.timeout(MAX_CALL_SECONDS):
                    body = await _read_body(receive)
            except TimeoutError:
                await _reject(send, 408)
                return
            receive = _replay_body(body, receive)
            if not self._names_uploads(body):
                status = 403
        if status != 200:
            await _reject(send, status)
            return
        # the file may be deleted while it is sent: the response ends early, without a traceback
        errors: tuple[type[Exception], ...] = (FileNotFoundError, RuntimeError) if "/file=" in path else ()
        if is_upload:
            errors = (ClientDisconnect,)
        with suppress(*errors):
            await self.inner(scope, receive, _add_headers(send))

    def _check(self, scope: Scope) -> int:
        """Return 200 for a request that may pass, otherwise the status of its rejection."""
        path = str(scope["path"])
        if scope["type"] != "http" or not is_page_request(path):
            return 404
        if self.local and read_host(scope) not in LOOPBACK:
            return 403
        if scope["method"] == "POST" and is_cross_site(scope):
            return 403
        if scope["method"] == "POST" and not 0 <= read_length(scope) <= self._max_body(path):
            return 413
        return 200

    def _max_body(self, path: str) -> int:
        if path.endswith("/upload"):
            return self.max_upload + MAX_CALL
        return MAX_CALL

    def _names_uploads(self, body: bytes) -> bool:
        """Return True if every file that a call names is an upload; Gradio would copy or fetch any other."""
        try:
            paths = list(_iterate_paths(json.loads(body or b"null")))
            return all(self.uploads in Path(str(path)).resolve().parents for path in paths)
        except (ValueError, OSError, RecursionError, RuntimeError):
            return False


def _iterate_paths(node: Any) -> Iterator[Any]:
    """Yield the value of every key ``path`` in a JSON value."""
    children: list[Any] = []
    if isinstance(node, list):
        children = node
    elif isinstance(node, dict):
        children = list(node.values())
        if node.get("path") is not None:
            yield node["path"]
    for child in children:
        yield from _iterate_paths(child)


def is_page_request(path: str) -> bool:
    """Return True for a path that the page itself requests.

    >>> is_page_request("/gradio_api/queue/join"), is_page_request("/gradio_api/info")
    (True, False)
    >>> is_page_request("/gradio_api/file=http://other/")
    False
    """
    if path in PAGE or path.startswith(ASSETS):
        return True
    call = path.removeprefix("/gradio_api/")
    if call == path:
        return False
    if call.startswith("file="):  # local files only
        return "://" not in call and ".." not in call.split("/") and "\0" not in call
    return call in CALLS or call.startswith("heartbeat/")


def read_host(scope: Scope) -> str:
    """Return the host of a request, without the port.

    >>> read_host({"headers": [(b"host", b"[::1]:7860")]}), read_host({"headers": [(b"host", b"evil.example:7860")]})
    ('::1', 'evil.example')
    """
    host = _read_header(scope, b"host").decode("latin-1")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_cross_site(scope: Scope) -> bool:
    """Return True for a request that a web page of another origin has sent; programs send neither of the headers.

    Reference: Go's ``http.CrossOriginProtection``.

    >>> is_cross_site({"headers": [(b"host", b"127.0.0.1:8000"), (b"origin", b"http://evil.example")]})
    True
    >>> is_cross_site({"headers": [(b"host", b"127.0.0.1:8000"), (b"origin", b"http://127.0.0.1:8000")]})
    False
    """
    site = _read_header(scope, b"sec-fetch-site")
    if site:
        return site not in (b"same-origin", b"none")
    origin = _read_header(scope, b"origin").decode("latin-1")
    if not origin:
        return False
    try:
        return urlsplit(origin).netloc.lower() != _read_header(scope, b"host").decode("latin-1").lower()
    except ValueError:
        return True


def parse_origins(cors: Sequence[Any]) -> tuple[str, ...]:
    """Return the checked origins of web pages that may send requests; ``*`` stands for all.

    Raises:
        ValueError: an entry is no origin.

    >>> parse_origins(["https://App.example", "http://localhost:3000"])
    ('https://app.example', 'http://localhost:3000')
    """
    origins = [str(origin) for origin in cors]
    for origin in origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError(f"cors: {origin!r} is no origin; write scheme and host, as in cors=[https://app.example].")
    return tuple(origin.lower() for origin in origins)


def read_length(scope: Scope) -> int:
    """Return the length of a request's body in bytes, -1 if the header is missing.

    >>> read_length({"headers": [(b"content-length", b"12")]}), read_length({"headers": []})
    (12, -1)
    """
    length = _read_header(scope, b"content-length")
    return int(length) if length.isdigit() else -1


def _read_header(scope: Scope, header: bytes) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == header), b"")


async def _read_body(receive: Receive) -> bytes:
    """Read the body of a request whose length has been checked."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _limit_seconds(receive: Receive, seconds: float) -> Receive:
    """Return a receiver that ends like a client who leaves, so many seconds from now."""
    deadline = asyncio.get_running_loop().time() + seconds

    async def receive_in_time() -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}

    return receive_in_time


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that yields a body that has been read already, then further messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        if messages:
            return messages.pop()
        return await receive()

    return replay


def _add_headers(send: Send) -> Send:
    """Return a sender that sets the security headers of every response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, value) for name, value in message.get("headers", []) if name.decode().lower() not in HEADERS
            ]
            headers += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = headers
        await send(message)

    return send_with_headers


async def _reject(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Not available."})
