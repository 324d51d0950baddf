"""A server whose pool sends prepared replies."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from omnihuman.serving.api import build_app
from omnihuman.serving.openai import ChatCompletions, RequestLimits
from omnihuman.serving.pool import Pool

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
MORE = {"weights": {}, "notes": [], "batch": 1, "seconds": 0.5}
END = {"text": "!", "end": {"reason": "stop", "usage": USAGE, "more": MORE}}
Server = SimpleNamespace


class FakePool(Pool):
    """A pool without processes that gives the same replies to every question."""

    def __init__(self, replies: Sequence[Any]) -> None:
        super().__init__(lambda connection, device: None, ["cpu"], 1)
        self.all_replies, self.questions, self.num_waiting = replies, list[Any](), 0
        self.ready.add(0)

    @contextmanager
    def submit(self, question: Any) -> Iterator[Any]:
        self.questions.append(question)
        assert question.folder.is_dir()
        replies: asyncio.Queue[Any] = asyncio.Queue()
        for reply in self.all_replies:
            replies.put_nowait(reply)
        self.num_waiting += 1
        try:
            yield replies
        finally:
            self.num_waiting -= 1


@pytest.fixture
def start_server(tmp_path: Path) -> Callable[..., Server]:
    """Return a function that starts a server whose pool answers every question with the same replies."""

    def start(
        replies: Sequence[Any] = (END,), limits: RequestLimits | None = None, key: str | None = None, origins: Any = ()
    ) -> Server:
        root = tmp_path / "root"
        root.mkdir()
        pool = FakePool(replies)
        endpoint = ChatCompletions("net", limits or RequestLimits(), root, pool, origins)
        app = build_app(endpoint, "127.0.0.1", key)
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        return Server(client=client, endpoint=endpoint, pool=pool, questions=pool.questions, root=root)

    return start
