"""Processes that answer, crash, or cannot load their model."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.messages import build_record
from omnihuman.serving import pool as pool_module
from omnihuman.serving.completions import Question
from omnihuman.serving.pool import Pool, list_devices


def repeat(connection: Connection, device: str) -> None:
    """Answer texts: ``crash`` ends the process, ``silent`` gets no reply, ``slow`` and ``endless`` take time."""
    connection.send(None)
    while True:
        questions = connection.recv()
        for position, question in enumerate(questions):
            (text,) = question.notes
            if text == "crash":
                os._exit(7)
            time.sleep({"slow": 0.3, "endless": 60}.get(text, 0))
            if text != "silent":
                connection.send((position, {"text": text, "batch": len(questions), "device": device}))
        connection.send(None)


def refuse(connection: Connection, device: str) -> None:
    connection.send("model.llm: no such file")


def crash(connection: Connection, device: str) -> None:
    os._exit(3)


@pytest.fixture(autouse=True)
def _fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes without importing this file again."""
    monkeypatch.setattr(pool_module, "context", multiprocessing.get_context("fork"))


def wait_until(condition: Callable[[], Any]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("timeout")


@contextmanager
def run_pool(devices: tuple[str, ...] = ("cpu",)) -> Iterator[Pool]:
    pool = Pool(repeat, devices, batch_size=2)
    with pool.run(end_server=lambda: None):
        wait_until(lambda: len(pool.ready) == len(devices))
        yield pool


def build_question(text: str) -> Question:
    record = build_record([{"role": "user", "content": "Who?"}], "request", "messages", Path())
    return Question(Path(), record, None, {}, None, (), False, (text,))


async def ask(pool: Pool, text: str) -> Any:
    """Return the first reply to a question."""
    with pool.submit(build_question(text)) as replies:
        return await asyncio.wait_for(replies.get(), 20)


async def ask_all(pool: Pool, *texts: str) -> list[Any]:
    return await asyncio.gather(*(ask(pool, text) for text in texts))


def test_questions_that_arrive_during_a_batch_are_the_next_one() -> None:
    with run_pool() as pool:
        replies = asyncio.run(ask_all(pool, "slow", "a", "b", "c"))
        assert [reply["text"] for reply in replies] == ["slow", "a", "b", "c"]
        assert sorted(reply["batch"] for reply in replies)[-2:] == [2, 2]
        wait_until(lambda: not pool.num_in_flight)
        assert not pool.waiting


def test_devices_share_the_queue() -> None:
    with run_pool(("cpu:0", "cpu:1")) as pool:
        replies = asyncio.run(ask_all(pool, *["slow"] * 6))
    assert {reply["device"] for reply in replies} == {"cpu:0", "cpu:1"}


def test_crash_fails_its_batch_and_starts_another_process(caplog: pytest.LogCaptureFixture) -> None:
    with run_pool() as pool:
        first = pool._processes[0].pid
        assert asyncio.run(ask(pool, "crash")) is None
        wait_until(lambda: pool.ready and pool._processes[0].pid != first)
        assert asyncio.run(ask(pool, "a"))["text"] == "a"
        assert pool.num_crashes == 1 and pool.failure is None and "exit code 7" in caplog.text


def test_crash_of_an_idle_process_is_noticed() -> None:
    with run_pool() as pool:
        process = pool._processes[0]
        process.kill()
        wait_until(lambda: pool.ready and pool._processes[0] is not process)
        assert asyncio.run(ask(pool, "a"))["text"] == "a"


def test_question_without_a_reply_ends() -> None:
    with run_pool() as pool:
        assert asyncio.run(ask(pool, "silent")) is None


def test_question_of_a_client_who_left_leaves_the_queue() -> None:
    async def leave(pool: Pool) -> None:
        with pool.submit(build_question("a")):
            assert len(pool.waiting) == 1
        assert not pool.waiting

    asyncio.run(leave(Pool(repeat, [], 1)))


@pytest.mark.parametrize(("target", "reason"), [(refuse, "model.llm: no such file"), (crash, "exit code 3")])
def test_model_that_cannot_be_loaded_ends_the_server(target: Any, reason: str) -> None:
    ends: list[bool] = []
    pool = Pool(target, ["cpu"], 1)
    with pool.run(end_server=lambda: ends.append(True)):
        wait_until(lambda: ends)
    assert pool.failure is not None and reason in pool.failure and not pool.ready


def test_processes_and_questions_end_with_the_pool() -> None:
    async def close(pool: Pool) -> list[Any]:
        asyncio.get_running_loop().call_later(0.1, pool.close)
        return await ask_all(pool, "endless", "a", "b")

    with run_pool() as pool:
        process = pool._processes[0]
        assert asyncio.run(close(pool)) == [None] * 3
    wait_until(lambda: not process.is_alive())
    assert pool.num_crashes == 0 and pool.failure is None and len(pool._processes) == 1


@pytest.mark.parametrize(
    ("accelerator", "devices", "workers", "expected"),
    [("cpu", 1, 1, ["cpu"]), ("cpu", 2, 1, ["cpu", "cpu"]), ("cuda", 2, 2, ["cuda:0", "cuda:1"] * 2)],
)
def test_devices(
    accelerator: str, devices: int, workers: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert list_devices(accelerator, devices, workers) == expected


@pytest.mark.parametrize(("accelerator", "devices"), [("cuda", 3), ("cpu", 0), ("tpu", 1)])
def test_missing_devices_raise(accelerator: str, devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"devices=3: .* 2|devices=0|accelerator=tpu"):
        list_devices(accelerator, devices, 1)
