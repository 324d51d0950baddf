"""An OpenAI-compatible endpoint on LitServe: authorization, limits, queueing and responses."""

import asyncio
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from litserve import LitAPI, LitServer, OpenAISpec
from litserve.utils import LitAPIStatus, ResponseBufferItem
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from omnihuman.serving.completions import (
    ChatRequest,
    ChunkEncoder,
    Question,
    build_completion,
    build_error_body,
    build_question,
    check_model_name,
    encode_event,
    parse_request,
)
from omnihuman.serving.guard import is_cross_site
from omnihuman.serving.process import LOOPBACK
from omnihuman.serving.uploads import Limits, RequestError, Uploads
from omnihuman.serving.worker import Reply, Worker

logger = logging.getLogger(__name__)
MAX_CONCURRENT_BODIES = 4
"""Number of bodies of the largest size that are read at the same time."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of requests.

    Attributes:
        max_body: bytes of a request.
        max_pending_requests: requests at the same time, their bodies read; further ones get status 503.
        max_seconds: of a request, from its first byte to the last byte of its answer.
        max_body_seconds: of the body of a request, from its first byte to its last.
        max_characters: of a conversation.
        max_new_tokens: of an answer, for a request without a number.
        max_request_tokens: largest number of new tokens that a request may set.
        media: limits of each medium.
        allow: folders with files that requests may name.
    """

    max_body: int = 96 * 2**20
    max_pending_requests: int = 128
    max_seconds: float = 300.0
    max_body_seconds: float = 60.0
    max_characters: int = 32_768
    max_new_tokens: int = 256
    max_request_tokens: int = 4096
    media: Limits = field(default_factory=Limits)
    allow: Sequence[str] = ()


class ChatCompletions(OpenAISpec):
    """``/v1/chat/completions`` and ``/v1/models`` in front of a ``Worker``.

    Reference: LitServe's ``OpenAISpec``, whose queue and endpoint these are.
    Differs from it: videos are accepted; media are checked and saved to a private folder before a request is queued,
    so that the queue carries file names only; a failed request gets its own status and OpenAI's error body; token
    counts and finish reasons come from the model; all files of a request are deleted with it.

    Args:
        name: of the model in requests.
        limits: of requests.
        root: private folder; every request gets a folder in it.
    """

    def __init__(self, name: str, limits: RequestLimits, root: Path) -> None:
        super().__init__()
        self.name, self.limits, self.root = name, limits, root
        self.num_pending = 0
        self.num_bytes = 0  # of bodies that are being read
        self.uploads = Uploads(limits.media, limits.allow)

    def pre_setup(self, lit_api: LitAPI) -> None:
        """LitServe's hook: add the endpoints of the models."""
        super().pre_setup(lit_api)
        self.add_endpoint("/v1/models", self.list_models, ["GET"])
        self.add_endpoint("/v1/models/{name}", self.describe_model, ["GET"])

    def populate_context(self, context: Any, request: Any) -> None:
        """LitServe's hook; a question needs no context."""

    async def list_models(self) -> dict[str, Any]:
        """Return the served model as a list."""
        return {"object": "list", "data": [await self.describe_model(self.name)]}

    async def describe_model(self, name: str) -> dict[str, Any]:
        """Return the served model.

        Raises:
            RequestError: the name is of another model.
        """
        check_model_name(name, self.name)
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "omnihuman"}

    async def chat_completion(self, request: Request) -> Response:  # type: ignore[override]
        """Answer a request.

        It takes one of the places of pending requests when its body is in: slow clients keep none from the others.
        """
        _check_sender(request)
        deadline = time.monotonic() + self.limits.max_seconds
        async with AsyncExitStack() as resources:
            try:
                async with asyncio.timeout(self.limits.max_seconds):
                    chat_request, question = await self._receive(request, resources)
            except TimeoutError:
                raise self._build_timeout() from None
            except ClientDisconnect:
                return Response(status_code=400)
            replies = self._iterate_replies(question, request, deadline)
            first = await anext(replies)
            if not question.stream:
                return JSONResponse(build_completion(self.name, first))
            return EventStream(self._encode_events(chat_request, first, replies), resources.pop_all())

    @contextmanager
    def _enter_request(self) -> Iterator[Path]:
        """Count a pending request and create its private folder.

        Raises:
            RequestError: there are too many pending requests.
        """
        self._check_load()
        self.num_pending += 1
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self.num_pending -= 1

    def _check_load(self) -> None:
        if self.num_pending >= self.limits.max_pending_requests:
            raise RequestError("overloaded", f"{self.num_pending} requests are pending; try again later.", 503)

    async def _receive(self, request: Request, resources: AsyncExitStack) -> tuple[ChatRequest, Question]:
        """Read a request and build its question; the body does not stay in memory.

        Raises:
            RequestError: there are too many pending requests, or the body is too slow, too large or invalid.
        """
        self._check_load()
        async with self._read_body(request) as body:
            folder = resources.enter_context(self._enter_request())
            return await asyncio.to_thread(self._build_question, body, folder)

    @asynccontextmanager
    async def _read_body(self, request: Request) -> AsyncIterator[bytearray]:
        """Read the body of a request, and count its bytes while it is in memory.

        Raises:
            RequestError: the body is too slow or too large, or the bodies of all requests together are too large.
        """
        max_body = self.limits.max_body
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > max_body:
            raise RequestError("too_large", f"the request has {length} bytes; at most {max_body} are accepted.", 413)
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self.limits.max_body_seconds):
                    # without a content length, LitServe's max_payload_size limits the body
                    async for piece in request.stream():
                        body += piece
                        self.num_bytes += len(piece)
                        self._check_bytes()
            except TimeoutError:
                message = f"the body of the request was not in within {self.limits.max_body_seconds:g} s."
                raise RequestError("timeout", message, 408) from None
            yield body
        finally:
            self.num_bytes -= len(body)

    def _check_bytes(self) -> None:
        if self.num_bytes > MAX_CONCURRENT_BODIES * self.limits.max_body:
            raise RequestError("overloaded", "too many large requests at once; try again later.", 503)

    def _build_question(self, body: bytearray, folder: Path) -> tuple[ChatRequest, Question]:
        request, limits = parse_request(body, self.name), self.limits
        question = build_question(
            request,
            self.uploads,
            folder,
            max_new_tokens=limits.max_new_tokens,
            max_request_tokens=limits.max_request_tokens,
            max_characters=limits.max_characters,
        )
        return request.model_copy(update={"messages": []}), question

    async def _iterate_replies(self, question: Question, request: Request, deadline: float) -> AsyncIterator[Reply]:
        """Queue a question and yield the worker's replies, up to the end of the answer.

        Raises:
            RequestError: the worker replies with an error, the deadline has passed, or the client has left.
        """
        uid = uuid.uuid4()
        responses: deque[tuple[Any, str]] = deque()
        arrival = asyncio.Event()
        self.response_buffer[uid] = ResponseBufferItem(response_queue=responses, event=arrival)
        try:
            self.request_queue.put((self.response_queue_id, uid, time.monotonic(), question))
            while True:
                while responses:
                    reply = _read_response(*responses.popleft())
                    yield reply
                    if "end" in reply:
                        return
                arrival.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(arrival.wait(), 0.5)
                if time.monotonic() > deadline:
                    raise self._build_timeout()
                if not arrival.is_set() and await request.is_disconnected():
                    raise RequestError("client_left", "the client has disconnected.", 400)
        finally:
            self.response_buffer.pop(uid, None)

    async def _encode_events(
        self, request: ChatRequest, first: Reply, replies: AsyncIterator[Reply]
    ) -> AsyncIterator[str]:
        options = request.stream_options or {}
        encoder = ChunkEncoder(self.name, with_usage=bool(options.get("include_usage")))
        yield encoder.encode(first)
        try:
            async for reply in replies:
                yield encoder.encode(reply)
        except RequestError as error:
            yield encode_event(build_error_body(error))

    def _build_timeout(self) -> RequestError:
        return RequestError("timeout", f"not answered within {self.limits.max_seconds:g} s.", 504)


def _check_sender(request: Request) -> None:
    """Check that a request is of a program and not of a web page of another site, which could send text and forms only.

    Raises:
        RequestError: it is of another site, or its body is not declared as JSON.
    """
    if is_cross_site(request.scope):
        raise RequestError("cross_site", "requests of web pages of other sites are not answered.", 403)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        message = f"content-type: {content_type[:80]!r} is not application/json; send that header."
        raise RequestError("unsupported_media_type", message, 415)


def _read_response(content: Any, status: str) -> Reply:
    """Return the reply in a response of the worker.

    Raises:
        RequestError: the reply is an error.
    """
    if status != LitAPIStatus.OK:  # the worker handles all expected errors: this is a fault of the program
        raise RequestError("server_error", "the model could not answer; see the server's log.", 500)
    reply: Reply = json.loads(content)
    if "error" in reply:
        raise RequestError(**reply["error"])
    return reply


class EventStream(StreamingResponse):
    """Server-sent events of an answer; the resources of the request are released at its end, however it ends."""

    def __init__(self, events: AsyncIterator[str], resources: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            await super().__call__(scope, receive, send)


def build_server(
    folder: Path,
    root: Path,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    limits: RequestLimits | None = None,
    batch_size: int = 16,
    api_key: str | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    workers_per_device: int = 1,
    model_kwargs: Mapping[str, Any] | None = None,
) -> LitServer:
    """Build the server of one model, ready to ``run``.

    Args:
        folder: of the model.
        root: an empty private folder for uploads.
        name: of the model in requests; ``None`` for the folder's name.
        host: address of the server; on loopback, requests must use a loopback name, so that no web page can send any.
        limits: of requests.
        batch_size: largest number of questions that are answered together.
        api_key: that every request must send.
        accelerator: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        devices: number of devices.
        workers_per_device: number of models on each device.
        model_kwargs: further arguments of ``Answerer.load``.
    """
    limits = limits or RequestLimits()
    spec = ChatCompletions(name or folder.resolve().name, limits, root)
    hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
    server = LitServer(
        Worker(folder, batch_size, api_key, model_kwargs or {}, spec=spec),
        accelerator=accelerator,
        devices=devices,
        workers_per_device=workers_per_device,
        timeout=False,  # LitServe's timeout starts late; max_seconds counts from the first byte
        max_payload_size=limits.max_body,
        middlewares=[(TrustedHostMiddleware, {"allowed_hosts": hosts})],
        disable_openapi_url=True,
    )
    for error in (RequestError, HTTPException):
        server.app.add_exception_handler(error, _handle_error)
    return server


async def _handle_error(request: Request, error: Exception) -> JSONResponse:
    """Return an error in the form of OpenAI."""
    if isinstance(error, HTTPException):
        code = "too_large" if error.status_code == 413 else "http_error"
        error = RequestError(code, str(error.detail), error.status_code)
    assert isinstance(error, RequestError)
    headers: dict[str, str] = {}
    if error.code == "overloaded":
        headers["retry-after"] = "1"
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse(build_error_body(error), error.status, headers)
