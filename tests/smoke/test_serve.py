"""The server, as OpenAI's clients meet it."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from omnihuman.data.chat import SYSTEM
from omnihuman.data.messages import record_of
from omnihuman.evaluation.answerer import Answerer

EXPERIMENT = "humanomni_stage3"


@dataclass
class Served:
    port: int
    private: Path
    clips: list[Path]
    process: subprocess.Popen[bytes]
    answerer: Answerer

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=60)

    def ask(self, content: Any, **more: Any) -> Any:
        given = {"model": EXPERIMENT, "messages": [{"role": "user", "content": content}], "max_tokens": 6, **more}
        return self.client.chat.completions.create(**given)

    def unserved(self, clip: Path, words: str) -> str:
        content = [{"type": "video", "url": str(clip)}, {"type": "text", "text": words}]
        record = record_of([{"role": "user", "content": content}], "test", "test", clip.parent)
        return self.answerer.ask([self.answerer.prompt(record)], max_new_tokens=6)[0].text

    def kept(self) -> list[Path]:
        """What lies in the server's private folder, once it has had the time to delete it."""
        for _ in range(50):
            if not (found := list(self.private.glob("omnihuman-serve-*/*"))):
                return []
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def served(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """An untrained model."""
    private, folder = tmp_path_factory.mktemp("private"), model_folder(EXPERIMENT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "omnihuman.serve", f"run={folder}", f"port={port}", f"allow=[{corpus / 'media'}]",
        "accelerator=cpu", "max_body=4000000", "max_waiting=16",
    ]  # fmt: skip
    environment = os.environ | {"TMPDIR": str(private), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=private)
    try:
        answerer = Answerer.of_run(folder, device="cpu")
        for _ in range(600):
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.1)
        yield Served(port, private, sorted((corpus / "media").glob("*.mp4")), process, answerer)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert not list(private.glob("omnihuman-*"))


def url(clip: Path) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": "data:;base64," + base64.b64encode(clip.read_bytes()).decode()}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_answers_are_those_of_the_model_and_each_gets_its_own(served: Served) -> None:
    asked = [
        (served.clips[number % len(served.clips)], f"Who is number {number}?" * (1 + number % 3))
        for number in range(12)
    ]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda one: served.ask([url(one[0]), text(one[1])]), asked))
    said = [reply.choices[0].message.content for reply in replies]
    assert said == [served.unserved(*one) for one in asked]
    assert len(set(said)) > 1 and max(reply.omnihuman["batch"] for reply in replies) > 1
    one = replies[0]
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens
    assert set(one.omnihuman["weights"]["gate"]) == {"interaction", "body", "face"} and not served.kept()


def test_a_streamed_answer_is_the_same(served: Served) -> None:
    clip = served.clips[0]
    pieces = list(served.ask([url(clip), text("Who?")], stream=True, stream_options={"include_usage": True}))
    whole = served.ask([{"type": "video_url", "video_url": {"url": clip.as_uri()}}, text("Who?")])
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == whole.choices[0].message.content
    assert pieces[-1].usage == whole.usage and pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_media_of_all_kinds(served: Served) -> None:
    clip = next(clip for clip in served.clips if "talk" in clip.name)
    sound = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(clip.read_bytes()).decode(), "format": "wav"},
    }
    picture = {"type": "image_url", "image_url": {"url": str(next(clip.parent.glob("*.png")))}}
    tokens = {}
    for name, content, modal in (
        ("both", [url(clip), text("Who?")], None), ("seen", [url(clip), text("Who?")], "video"),
        ("heard", [url(clip), text("Who?")], "audio"), ("sound", [sound, text("Who?")], None), ("words", "Who?", None),
        ("still", [picture, text("Who?")], None),
    ):  # fmt: skip
        tokens[name] = served.ask(content, extra_body={"modal": modal}).usage.prompt_tokens
    assert tokens["both"] > tokens["seen"] > tokens["words"] and tokens["heard"] == tokens["sound"] > tokens["words"]
    assert tokens["seen"] > tokens["still"] > tokens["words"]


def test_a_conversation(served: Served) -> None:
    turns = [("user", [url(served.clips[0]), text("Who?")]), ("assistant", "Ann"), ("user", "And now?")]
    reply = served.ask("", messages=[{"role": role, "content": content} for role, content in turns])
    assert reply.usage.prompt_tokens > served.ask([url(served.clips[0]), text("Who?")]).usage.prompt_tokens


def test_what_is_refused(served: Served) -> None:
    cut = url(served.clips[0])
    cut["video_url"]["url"] = cut["video_url"]["url"][: len("data:;base64,") + 4000]
    for content, code in (
        ([cut, text("Who?")], "unreadable_media"),
        ([{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}], "url_not_allowed"),
        ([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}], "url_not_allowed"),
        ("What does <|im_end|> mean?", "mark_in_text"),
    ):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as refused:
                served.ask(content, stream=stream)
            assert refused.value.code == code and str(served.private) not in str(refused.value)
    with pytest.raises(openai.NotFoundError):
        served.ask("Who?", model="gpt-4o")
    assert served.client.models.list().data[0].id == EXPERIMENT and not served.kept()


def test_a_system_message_takes_the_place_of_the_usual_one(served: Served) -> None:
    def tokens(*system: str) -> int:
        first = [{"role": "system", "content": words} for words in system]
        usage = served.ask("", messages=[*first, {"role": "user", "content": "Who?"}]).usage
        return int(usage.prompt_tokens)

    assert tokens(SYSTEM) == tokens("") == tokens() > tokens("Be kind.")


def test_two_gigabytes_are_not_read(served: Served) -> None:
    connection, sent = socket.create_connection(("127.0.0.1", served.port)), 0
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n")
    with pytest.raises(OSError):
        while sent < 2**31:
            connection.sendall(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
            sent += 2**20
    assert sent < 2**27
    told = http.client.HTTPConnection("127.0.0.1", served.port)
    told.putrequest("POST", "/v1/chat/completions")
    told.putheader("content-length", str(2**31))
    told.endheaders()
    reply = told.getresponse()
    assert reply.status == 413 and json.loads(reply.read())["error"]["code"] == "too_large"


def test_who_leaves_amid_an_answer_is_forgotten(served: Served) -> None:
    for stream in (True, False):
        body = {"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 2000, "stream": stream}
        connection = http.client.HTTPConnection("127.0.0.1", served.port)
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        if stream:
            assert connection.getresponse().read(20)
        assert list(served.private.glob("omnihuman-serve-*/*")) or not stream
        connection.close()
        assert not served.kept()
    assert served.ask("Who?").choices[0].message.content is not None
