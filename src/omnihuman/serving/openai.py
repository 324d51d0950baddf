"""An OpenAI-compatible endpoint on LitServe: who may ask, how much at a time, and what each is told."""

import asyncio
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
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
    Asked,
    Question,
    chunks,
    completion,
    error_body,
    event,
    question_of,
    read_request,
)
from omnihuman.serving.process import LOOPBACK
from omnihuman.serving.uploads import Limits, Refused, Uploads
from omnihuman.serving.worker import Said, Worker

logger = logging.getLogger(__name__)
TOGETHER = 4
"""How many of the largest bodies may come in at a time."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What strangers may do.

    Attributes:
        body: bytes of a request.
        waiting: requests at a time; more are told to come again.
        seconds: that a request may take, from its first byte to the last of its answer.
        characters: of a conversation.
        new_tokens: of an answer whose request says no number.
        most_tokens: that a request may ask for.
        media: how large each may be.
        allow: folders whose files may be named.
    """

    body: int = 96 * 2**20
    waiting: int = 128
    seconds: float = 300.0
    characters: int = 32_768
    new_tokens: int = 256
    most_tokens: int = 4096
    media: Limits = field(default_factory=Limits)
    allow: Sequence[str] = ()


class Completions(OpenAISpec):
    """``/v1/chat/completions`` and ``/v1/models`` in front of a ``Worker``.

    Reference: LitServe's ``OpenAISpec``, whose queue and endpoint these are.
    Differs from it: media may be videos; what is sent is looked at, and written to a private folder, before it is
    queued, so that the queue carries names only; a request that cannot be answered gets a status and OpenAI's error
    body, alone; tokens and the reason of an end are the model's own; nothing of a request is left behind.

    Args:
        name: of the model, as requests call it.
        rules: what they may do.
        root: private folder, where each request has one of its own.
    """

    def __init__(self, name: str, rules: Rules, root: Path) -> None:
        super().__init__()
        self.name, self.rules, self.root, self.waiting = name, rules, root, 0
        self.held = 0  # bytes of bodies that are being read
        self.uploads = Uploads(rules.media, rules.allow)

    def pre_setup(self, lit_api: LitAPI) -> None:
        """LitServe's hook: two endpoints more."""
        super().pre_setup(lit_api)
        self.add_endpoint("/v1/models", self.models, ["GET"])
        self.add_endpoint("/v1/models/{name}", self.model, ["GET"])

    def populate_context(self, context: Any, request: Any) -> None:
        """LitServe's hook: a question says all of itself."""

    async def models(self) -> dict[str, Any]:
        """What is served."""
        return {"object": "list", "data": [await self.model(self.name)]}

    async def model(self, name: str) -> dict[str, Any]:
        """The one model, by its name.

        Raises:
            Refused: it is another's.
        """
        if name != self.name:
            raise Refused("model_not_found", f"model: {name[:80]!r} is not served here; {self.name!r} is.", 404)
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "omnihuman"}

    async def chat_completion(self, request: Request) -> Response:  # type: ignore[override]
        """Answer a request, or say why not."""
        deadline = time.monotonic() + self.rules.seconds
        async with AsyncExitStack() as held:
            folder = held.enter_context(self._place())
            try:
                async with asyncio.timeout(self.rules.seconds):
                    asked, question = await self._received(request, folder)
            except TimeoutError:
                raise self._late() from None
            except ClientDisconnect:
                return Response(status_code=400)
            answers = self._answers(question, request, deadline)
            first = await anext(answers)
            if not question.stream:
                return JSONResponse(completion(self.name, first))
            return Held(self._events(asked, first, answers), held.pop_all())

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """One of the places, with a private folder that is there for as long as it is held.

        Raises:
            Refused: all are taken.
        """
        if self.waiting >= self.rules.waiting:
            raise Refused("overloaded", f"{self.waiting} requests are waiting already; ask again in a moment.", 503)
        self.waiting += 1
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self.waiting -= 1

    async def _received(self, request: Request, folder: Path) -> tuple[Asked, Question]:
        """The question of a request; of its body nothing stays in memory.

        Raises:
            Refused: it is too large, or those that come in together are, or it cannot be asked.
        """
        body, most, told = bytearray(), self.rules.body, request.headers.get("content-length", "0")
        if told.isdecimal() and int(told) > most:
            raise Refused("too_large", f"the request has {told} bytes; at most {most} are taken.", 413)
        try:
            async for piece in request.stream():  # where no length is told, LitServe's max_payload_size counts
                body += piece
                self.held += len(piece)
                if self.held > TOGETHER * most:
                    raise Refused("overloaded", "too much comes in at the moment; ask again in a moment.", 503)
            return await asyncio.to_thread(self._question, body, folder)
        finally:
            self.held -= len(body)

    def _question(self, body: bytearray, folder: Path) -> tuple[Asked, Question]:
        asked, rules = read_request(body, self.name), self.rules
        question = question_of(asked, self.uploads, folder, rules.new_tokens, rules.most_tokens, rules.characters)
        return asked.model_copy(update={"messages": []}), question

    async def _answers(self, question: Question, request: Request, deadline: float) -> AsyncIterator[Said]:
        """What the worker says to one question, up to the end of the answer.

        Raises:
            Refused: it cannot be answered, or not in time.
        """
        uid, said, news = uuid.uuid4(), deque[tuple[Any, str]](), asyncio.Event()
        self.response_buffer[uid] = ResponseBufferItem(response_queue=said, event=news)
        try:
            self.request_queue.put((self.response_queue_id, uid, time.monotonic(), question))
            while True:
                while said:
                    content, status = said.popleft()
                    if status != LitAPIStatus.OK:  # neither an answer nor a reason: an error in this program
                        raise Refused("server_error", "the model could not answer; the server's log says why.", 500)
                    message: Said = json.loads(content)
                    if error := message.get("error"):
                        raise Refused(**error)
                    yield message
                    if "end" in message:
                        return
                news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), 0.5)
                if time.monotonic() > deadline:
                    raise self._late()
                if not news.is_set() and await request.is_disconnected():
                    raise Refused("client_left", "nobody waits for the answer.", 400)
        finally:
            self.response_buffer.pop(uid, None)

    async def _events(self, asked: Asked, first: Said, answers: AsyncIterator[Said]) -> AsyncIterator[str]:
        made = chunks(self.name, asked)
        yield made.of(first)
        try:
            async for message in answers:
                yield made.of(message)
        except Refused as error:
            yield event(error_body(error))

    def _late(self) -> Refused:
        return Refused("timeout", f"not answered within {self.rules.seconds:g} s.", 504)


class Held(StreamingResponse):
    """Events of an answer; what is held for it is let go when it ends, however it ends."""

    def __init__(self, events: AsyncIterator[str], held: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


def make_server(
    folder: Path,
    root: Path,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    rules: Rules | None = None,
    batch_size: int = 16,
    api_key: str | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    workers_per_device: int = 1,
    model: Mapping[str, Any] | None = None,
) -> LitServer:
    """A server of one model, ready to ``run``.

    Args:
        folder: of the model.
        root: an empty private folder, for what is sent.
        name: of the model, as requests call it; ``None``: the folder's.
        host: where it listens; on loopback it answers to no other name, so that no web page can ask it.
        rules: what requests may do.
        batch_size: questions that are asked at once.
        api_key: that every request must bring.
        accelerator: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        devices: how many.
        workers_per_device: models on each.
        model: further arguments of ``Answerer.of_run``.
    """
    rules = rules or Rules()
    spec = Completions(name or folder.resolve().name, rules, root)
    hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
    server = LitServer(
        Worker(folder, batch_size, api_key, model or {}, spec=spec),
        accelerator=accelerator,
        devices=devices,
        workers_per_device=workers_per_device,
        timeout=False,  # a request's own time counts from its first byte
        max_payload_size=rules.body,
        middlewares=[(TrustedHostMiddleware, {"allowed_hosts": hosts})],
        disable_openapi_url=True,
    )
    for kind in (Refused, HTTPException):
        server.app.add_exception_handler(kind, _refusal)
    return server


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    """OpenAI's error body."""
    if isinstance(error, HTTPException):
        error = Refused("too_large" if error.status_code == 413 else "http_error", str(error.detail), error.status_code)
    assert isinstance(error, Refused)
    headers = {"retry-after": "1"} if error.code == "overloaded" else {}
    if error.status == 413:
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse(error_body(error), error.status, headers)
