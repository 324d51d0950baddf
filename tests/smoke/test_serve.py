"""The server, with OpenAI's client."""

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
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from omnihuman.build import compose_part
from omnihuman.data.messages import build_record
from omnihuman.inference.answerer import Answerer

EXPERIMENT = "humanomni_stage3"


@dataclass
class Server:
    """A running server, and its model in this process."""

    port: int
    private: Path
    clips: list[Path]
    process: subprocess.Popen[bytes]
    answerer: Answerer

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=60)

    def ask(self, content: Any, **options: Any) -> Any:
        """Send a request with one message, or with the messages of the options."""
        body = {"model": EXPERIMENT, "messages": [{"role": "user", "content": content}], "max_tokens": 6, **options}
        return self.client.chat.completions.create(**body)

    def answer_directly(self, clip: Path, question: str) -> str:
        """Return the answer of the model without the server."""
        content = [{"type": "video", "url": str(clip)}, {"type": "text", "text": question}]
        record = build_record([{"role": "user", "content": content}], "test", "test", clip.parent)
        return self.answerer.answer_prompts([self.answerer.build_prompt(record)], max_new_tokens=6)[0].text

    def list_files(self) -> list[Path]:
        """Return the files of requests that the server has not deleted after five seconds."""
        for _ in range(50):
            files = list(self.private.glob("omnihuman-serve-*/*"))
            if not files:
                break
            time.sleep(0.1)
        return files


@pytest.fixture(scope="module")
def server(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server of an untrained model."""
    private, folder = tmp_path_factory.mktemp("private"), model_folder(EXPERIMENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "omnihuman.serve",
        f"run={folder}",
        f"port={port}",
        f"allow=[{corpus / 'media'}]",
        "accelerator=cpu",
        "max_body=4000000",
        "max_pending_requests=16",
    ]
    environment = os.environ | {"TMPDIR": str(private), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=private)
    try:
        answerer = Answerer.load(folder, device="cpu")
        for _ in range(600):
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.1)
        yield Server(port, private, sorted((corpus / "media").glob("*.mp4")), process, answerer)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert not list(private.glob("omnihuman-*"))


def video_part(clip: Path) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": "data:;base64," + base64.b64encode(clip.read_bytes()).decode()}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_concurrent_requests_get_the_answers_of_the_model(server: Server) -> None:
    questions: list[tuple[Path, str]] = []
    for number in range(12):
        clip = server.clips[number % len(server.clips)]
        questions.append((clip, f"Who is number {number}?" * (1 + number % 3)))

    def ask(question: tuple[Path, str]) -> Any:
        clip, text = question
        return server.ask([video_part(clip), text_part(text)])

    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(ask, questions))
    answers = [reply.choices[0].message.content for reply in replies]
    assert answers == [server.answer_directly(clip, text) for clip, text in questions]
    assert len(set(answers)) > 1 and max(reply.omnihuman["batch"] for reply in replies) > 1
    usage = replies[0].usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert set(replies[0].omnihuman["weights"]["gate"]) == {"interaction", "body", "face"} and not server.list_files()


def test_streamed_answer_equals_the_complete_one(server: Server) -> None:
    clip = server.clips[0]
    content = [video_part(clip), text_part("Who?")]
    pieces = list(server.ask(content, stream=True, stream_options={"include_usage": True}))
    reply = server.ask([{"type": "video_url", "video_url": {"url": clip.as_uri()}}, text_part("Who?")])
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == reply.choices[0].message.content
    assert pieces[-1].usage == reply.usage and pieces[-2].choices[0].finish_reason == reply.choices[0].finish_reason


def test_media_of_all_kinds_add_prompt_tokens(server: Server) -> None:
    clip = next(clip for clip in server.clips if "talk" in clip.name)
    question = text_part("Who?")
    audio = {"data": base64.b64encode(clip.read_bytes()).decode(), "format": "wav"}
    audio_part = {"type": "input_audio", "input_audio": audio}
    image_part = {"type": "image_url", "image_url": {"url": str(next(clip.parent.glob("*.png")))}}

    def count_tokens(content: Any, view: str | None = None) -> int:
        return int(server.ask(content, extra_body={"view": view}).usage.prompt_tokens)

    text = count_tokens("Who?")
    video = count_tokens([video_part(clip), question], "video")
    assert count_tokens([video_part(clip), question]) > video > count_tokens([image_part, question]) > text
    assert count_tokens([video_part(clip), question], "audio") == count_tokens([audio_part, question]) > text


def test_earlier_turns_are_part_of_the_prompt(server: Server) -> None:
    question = [video_part(server.clips[0]), text_part("Who?")]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "Ann"},
        {"role": "user", "content": "And now?"},
    ]
    conversation = server.ask("", messages=messages)
    assert conversation.usage.prompt_tokens > server.ask(question).usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_invalid_requests_have_an_error_code(server: Server, stream: bool) -> None:
    truncated = video_part(server.clips[0])
    truncated["video_url"]["url"] = truncated["video_url"]["url"][: len("data:;base64,") + 4000]
    for content, code in (
        ([truncated, text_part("Who?")], "unreadable_media"),
        ([{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}], "url_not_allowed"),
        ([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}], "url_not_allowed"),
        ("What does <|im_end|> mean?", "special_token_in_text"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            server.ask(content, stream=stream)
        assert caught.value.code == code and str(server.private) not in str(caught.value)
    assert not server.list_files()


def test_choice_has_the_log_probabilities_of_evaluate(server: Server) -> None:
    """``evaluate`` calls ``answer_batch``."""
    clip, labels, question = server.clips[0], ["happy", "sad", "angry"], "How does the person feel?"

    class Emotion(BaseModel):
        emotion: Literal["happy", "sad", "angry"]

    content = [{"type": "video", "url": str(clip)}, {"type": "text", "text": question}]
    record = build_record([{"role": "user", "content": content}], "test", "test", clip.parent)
    batch = server.answerer.pack_prompts([server.answerer.build_prompt(record)])
    expected = server.answerer.answer_batch(batch, [labels], max_new_tokens=1)[0].log_probs
    messages: Any = [{"role": "user", "content": [video_part(clip), text_part(question)]}]
    with ThreadPoolExecutor(2) as pool:  # beside another request
        other = pool.submit(server.ask, "Who?")
        reply = pool.submit(
            server.client.chat.completions.parse, model=EXPERIMENT, messages=messages, response_format=Emotion
        ).result()
        assert other.result().choices[0].message.content is not None
    details = reply.omnihuman
    assert list(details["log_probs"]) == labels
    assert list(details["log_probs"].values()) == pytest.approx(expected, abs=2e-4)
    assert sum(details["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    likeliest = max(details["probabilities"], key=details["probabilities"].get)
    assert reply.choices[0].message.parsed == Emotion(emotion=likeliest)
    plain = {"type": "choice", "choices": labels}
    pieces = server.ask(messages[0]["content"], stream=True, extra_body={"response_format": plain})
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == likeliest
    with pytest.raises(openai.BadRequestError) as caught:
        server.ask("Who?", extra_body={"response_format": {"type": "choice", "choices": []}})
    assert caught.value.param == "response_format.choices"


def test_metrics_count_the_answers(server: Server) -> None:
    reply = server.ask("Who?")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        lines = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[0] != "#")
    assert float(lines['omnihuman_tokens_total{kind="completion"}']) >= reply.usage.completion_tokens
    assert float(lines["omnihuman_models_ready"]) == 1 and float(lines["omnihuman_model_load_seconds"]) > 0


def test_only_the_served_model_is_found(server: Server) -> None:
    with pytest.raises(openai.NotFoundError):
        server.ask("Who?", model="gpt-4o")
    assert server.client.models.list().data[0].id == EXPERIMENT


def test_system_message_replaces_the_default(server: Server) -> None:
    def count_tokens(*system: str) -> int:
        messages = [{"role": "system", "content": text} for text in system]
        usage = server.ask("", messages=[*messages, {"role": "user", "content": "Who?"}]).usage
        return int(usage.prompt_tokens)

    default = compose_part("llm/template", "chatml").system
    assert count_tokens(default) == count_tokens("") == count_tokens() > count_tokens("Be kind.")


def test_body_of_unknown_length_is_not_read_beyond_the_limit(server: Server) -> None:
    connection, num_bytes = socket.create_connection(("127.0.0.1", server.port)), 0
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    with pytest.raises(OSError):
        while num_bytes < 2**31:
            connection.sendall(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
            num_bytes += 2**20
    assert num_bytes < 2**27


def test_body_of_known_length_is_rejected_at_once(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(2**31))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413 and json.loads(response.read())["error"]["code"] == "too_large"


@pytest.mark.parametrize("stream", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_files_are_deleted_when_the_client_leaves(server: Server, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 2000, "stream": stream}
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    if stream:
        assert connection.getresponse().read(20)
        assert list(server.private.glob("omnihuman-serve-*/*"))
    connection.close()
    assert not server.list_files()
    assert server.ask("Who?").choices[0].message.content is not None
