"""A judge's endpoint: a server process on loopback, one per test module."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnihuman.judge.endpoint import EndpointJudge


@contextmanager
def open_server(port: int = 0, version: str = "2024") -> Iterator[str]:
    """Start a server that serves this version of every model, and return its address."""
    command = [sys.executable, str(Path(__file__).with_name("server.py")), str(port), version]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def read_log(endpoint: str, model: str) -> list[dict[str, Any]]:
    """Return the requests that a server got for a model, in order."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(endpoint) as answer:
        return [entry for entry in json.load(answer) if entry["body"]["model"] == model]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Start a server and return its address."""
    with open_server() as address:
        yield address


@pytest.fixture
def log(endpoint: str) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function: model -> the requests that the server got for it, in order."""

    return partial(read_log, endpoint)


@pytest.fixture
def make(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EndpointJudge]:
    """Return a function: model and options -> a judge that queries the server, with very short waits."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", "s3cret")

    defaults: dict[str, Any] = {
        "base_url": endpoint,
        "api_key_env": "JUDGE_KEY",
        "cache": str(tmp_path / "judgements.sqlite"),
        "timeout": 10.0,
        "max_retries": 2,
        "backoff": (0.01, 1.0),
    }

    def build(model: str, **options: Any) -> EndpointJudge:
        return EndpointJudge(model, **(defaults | options))

    return build
