"""A judge's endpoint: a server process on loopback that lives as long as a module's tests."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnihuman.judge.endpoint import EndpointJudge


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a running server."""
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


@pytest.fixture
def log(endpoint: str) -> Callable[[str], list[dict[str, Any]]]:
    """Model -> the requests that the server got for it, in order."""

    def read(model: str) -> list[dict[str, Any]]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(endpoint) as answer:
            return [one for one in json.load(answer) if one["body"]["model"] == model]

    return read


@pytest.fixture
def make(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EndpointJudge]:
    """A model's name and options -> a judge that asks the server, and waits for next to nothing."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", "s3cret")

    def judge(model: str, **options: Any) -> EndpointJudge:
        usual: dict[str, Any] = {
            "base_url": endpoint, "api_key_env": "JUDGE_KEY", "cache": str(tmp_path / "judgements.sqlite"),
            "timeout": 10.0, "max_retries": 2, "backoff": (0.01, 1.0),
        }  # fmt: skip
        return EndpointJudge(model, **(usual | options))

    return judge
