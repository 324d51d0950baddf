"""Handlers of OpenAI's chat completions: limits, queueing and responses."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from omnihuman.serving.completions import (
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
from omnihuman.serving.metrics import Metrics
from omnihuman.serving.pool import Pool, Reply
from omnihuman.serving.schema import ChatRequest
from omnihuman.serving.uploads import Limits, RequestError, Uploads

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


class ChatCompletions:
    """The handlers of ``/v1``, in front of a pool of models.

    Media are checked and saved to a private folder before a question is queued, so that processes exchange file names
    only. All files of a request are deleted with it.

    Args:
        name: of the model in requests.
        limits: of requests.
        root: private folder; every request gets a folder in it.
        pool: answers questions.
        origins: of web pages that may send requests; ``*`` for all.
    """

    def __init__(self, name: str, limits: RequestLimits, root: Path, pool: Pool, origins: Sequence[str] = ()) -> None:
        self.name, self.limits, self.root, self.pool, self.origins = name, limits, root, pool, origins
        self.metrics = Metrics(pool)
        self.num_pending = 0
        self.num_bytes = 0  # of bodies that are being read
        self.uploads = Uploads(limits.media, limits.allow)

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

    async def check_ready(self) -> dict[str, str]:
        """Return that a model answers.

        Raises:
            RequestError: no model is loaded.
        """
        self._check_ready()
        return {"status": "ready"}

    async def check_live(self) -> dict[str, str]:
        """Return that the server answers, whether a model is loaded or not."""
        return {"status": "live"}

    async def complete(self, request: Request) -> Response:
        """Answer a conversation about images, videos and audio.

        It takes one of the places of pending requests when its body is in: slow clients keep none from the others.
        """
        self._check_sender(request)
        deadline = time.monotonic() + self.limits.max_seconds
        async with AsyncExitStack() as resources:
            try:
                async with asyncio.timeout(self.limits.max_seconds):
                    chat_request, question = await self._receive(request, resources)
            except TimeoutError:
                raise self._build_timeout() from None
            except ClientDisconnect:
                return Response(status_code=400)
            replies = await resources.enter_async_context(aclosing(self._iterate_replies(question, request, deadline)))
            first = await anext(replies)
            if not question.stream:
                return JSONResponse(build_completion(self.name, first))
            return EventStream(self._encode_events(chat_request, first, replies), resources.pop_all())

    def _check_sender(self, request: Request) -> None:
        """Check that a request is of a program, or of a web page of this site or of an allowed one.

        The browser asks first before a page sends JSON to another site, but not before it sends text or a form.

        Raises:
            RequestError: it is of another site, or its body is not declared as JSON.
        """
        origin = request.headers.get("origin", "")
        if is_cross_site(request.scope) and not {"*", origin} & set(self.origins):
            raise RequestError("cross_site", "requests of web pages of other sites are not answered (cors=).", 403)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            message = f"content-type: {content_type[:80]!r} is not application/json; send that header."
            raise RequestError("unsupported_media_type", message, 415)

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

    def _check_ready(self) -> None:
        if not self.pool.ready:
            raise RequestError("not_ready", "the model is not loaded; try again later.", 503)

    def _check_load(self) -> None:
        self._check_ready()
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
            raise _build_too_large(f"the request has {length} bytes", max_body)
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self.limits.max_body_seconds):
                    async for piece in request.stream():
                        body += piece
                        self.num_bytes += len(piece)
                        if len(body) > max_body:  # of a request without a content length
                            raise _build_too_large("the request is larger", max_body)
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

    async def _iterate_replies(
        self, question: Question, request: Request, deadline: float
    ) -> AsyncGenerator[Reply, None]:
        """Queue a question and yield the replies, up to the end of the answer.

        Raises:
            RequestError: the reply is an error, the deadline has passed, or the client has left.
        """
        with self.pool.submit(question) as replies:
            while time.monotonic() < deadline:
                try:
                    reply = await asyncio.wait_for(replies.get(), 0.5)
                except TimeoutError:
                    if await request.is_disconnected():
                        raise RequestError("client_left", "the client has disconnected.", 400) from None
                    continue
                if reply is None and self.pool.is_closed:
                    raise RequestError("shutting_down", "the server is shutting down.", 503)
                if reply is None:
                    raise RequestError("server_error", "the model could not answer; see the server's log.", 500)
                if "error" in reply:
                    raise RequestError(**reply["error"])
                if "end" in reply:
                    self.metrics.count_answer(reply)
                    yield reply
                    return
                yield reply
        raise self._build_timeout()

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
            self.metrics.errors.labels(error.code).inc()
            yield encode_event(build_error_body(error))

    def _build_timeout(self) -> RequestError:
        return RequestError("timeout", f"not answered within {self.limits.max_seconds:g} s.", 504)


def _build_too_large(problem: str, max_body: int) -> RequestError:
    return RequestError("too_large", f"{problem}; at most {max_body} bytes are accepted.", 413)


class EventStream(StreamingResponse):
    """Server-sent events of an answer; the resources of the request are released at its end, however it ends."""

    def __init__(self, events: AsyncIterator[str], resources: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            await super().__call__(scope, receive, send)
