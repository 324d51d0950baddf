"""The page, in a browser."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

ANSWER = "#past article"
TABS = {"video": "Video", "audio": "Audio", "image": "Image"}


@dataclass
class Server:
    """A running server of the page."""

    port: int
    folder: Path  # private folder of the server
    clips: Path
    log: Path
    process: subprocess.Popen[bytes]

    def request_status(self, path: str, host: str = "127.0.0.1", method: str = "GET") -> int:
        """Return the status of a request whose path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"{host}:{self.port}")
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    def find_uploads(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"*/uploads/**/{name}"))

    def is_deleted(self, name: str) -> bool:
        """True if an upload is deleted within ten seconds."""
        for _ in range(100):
            if not self.find_uploads(name):
                return True
            time.sleep(0.1)
        return False


@pytest.fixture(scope="module")
def server(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The page of an untrained model, with the clips of a small corpus as examples."""
    clips, private = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("private")
    (clips / "media").symlink_to(corpus / "media")
    shutil.copy(corpus / "val.json", clips / "test.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "omnihuman.chat",
        f"run={model_folder('humanomni_stage3')}",
        f"port={port}",
        f"examples={clips}",
        "max_upload=2",
        "max_seconds=20",
        "max_new_tokens=12",
    ]
    log = private / "log.txt"
    environment = os.environ | {"TMPDIR": str(private), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    server = Server(port, private, corpus / "media", log, process)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                if server.request_status("/") == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield server
        process.terminate()
        process.wait(20)
        assert not list(private.glob("omnihuman-chat-*"))
    finally:
        process.kill()


@pytest.fixture
def page(server: Server, browser: Any) -> Iterator[Any]:
    """An open page; it must not request anything from another machine, nor show a traceback."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.set_default_timeout(15_000)
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#question textarea")
    yield page
    text = page.inner_text("body")
    page.close()
    allowed = (f"http://127.0.0.1:{server.port}/", "data:", "blob:")
    assert urls and not [url for url in urls if not url.startswith(allowed)]
    assert "Traceback" not in text and str(server.folder) not in text


def upload(page: Any, file: Path, kind: str = "video") -> None:
    page.click(f"#media [role=tab]:visible >> text={TABS[kind]}")
    page.set_input_files(f"#{kind} input[type=file]", str(file))


def ask(page: Any, question: str) -> Any:
    """Ask a question, and return its turn when the answer is complete."""
    number = page.locator(ANSWER).count()
    page.fill("#question textarea", question)
    page.click("#go")
    page.wait_for_function(f"document.querySelectorAll('{ANSWER}').length == {number + 1}")
    return page.locator(ANSWER).nth(number)


def write_clip(media: Path, folder: Path, name: str) -> Path:
    """Write a clip that differs from the uploads of other tests."""
    clip = folder / name
    clip.write_bytes(sorted(media.glob("train_talk*.mp4"))[0].read_bytes() + name.encode())
    return clip


def read_views(page: Any) -> list[str]:
    return list(page.locator("#view input").evaluate_all("inputs => inputs.map(input => input.value)"))


def test_conversation_about_an_upload(server: Server, page: Any, tmp_path: Path) -> None:
    upload(page, write_clip(server.clips, tmp_path, "mine.mp4"))
    page.wait_for_selector(".medium >> text=mine.mp4")
    assert len(server.find_uploads("mine.mp4")) == 1
    assert read_views(page) == ["VA", "V", "A", "text"]
    question = "What is <b>the</b> main {{emotion}}, ${1 + 1}?"
    first = ask(page, question)
    assert first.locator(".question").inner_text() == question
    second = ask(page, "And why?")
    assert page.locator(ANSWER).count() == 2
    lengths = [int(turn.locator(".statistics dd").first.inner_text().split()[0]) for turn in (first, second)]
    assert lengths[1] > lengths[0]  # the second prompt includes the first turn
    page.screenshot(path=str(tmp_path / "page.png"))
    page.click("#clear")
    page.wait_for_selector(".empty")
    assert server.is_deleted("mine.mp4") and page.locator(ANSWER).count() == 0
    assert read_views(page) == ["text"]


@pytest.mark.slow
def test_answer_shows_inputs_weights_and_statistics(server: Server, page: Any, tmp_path: Path) -> None:
    upload(page, write_clip(server.clips, tmp_path, "inputs.mp4"))
    page.wait_for_selector(".medium >> text=inputs.mp4")
    turn = ask(page, "Who?")
    assert turn.locator(".film.frames img").count() == 8
    assert turn.locator(".film small").first.inner_text().endswith(" s")
    assert turn.locator(".mel img").evaluate("image => image.naturalWidth") > 100
    weights = turn.locator("[data-fusion=gate] li").evaluate_all("bars => bars.map(bar => Number(bar.dataset.weight))")
    assert len(weights) == 3 and sum(weights) == pytest.approx(1, abs=1e-3)
    widths = turn.locator("[data-fusion=gate] b").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )
    assert np.argmax(widths) == np.argmax(weights)
    statistics = turn.locator(".statistics").inner_text()
    assert all(name in statistics for name in ("video", "audio", "text", "new tokens", "time"))


@pytest.mark.slow
def test_invalid_uploads_are_errors(server: Server, page: Any, tmp_path: Path) -> None:
    content = sorted(server.clips.glob("train_talk*.mp4"))[1].read_bytes()
    files = {"cut.mp4": content[: len(content) // 2], "letter.mp4": b"Dear model,\n" * 400, "none.mp4": b""}
    for name, invalid in files.items():
        (tmp_path / name).write_bytes(invalid)
        upload(page, tmp_path / name)
        page.wait_for_selector(f"#status .failure >> text={name}")
        assert server.is_deleted(name)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_uploads_above_the_limits_are_errors(server: Server, page: Any, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "long.wav"), "wb") as out:
        out.setparams((1, 1, 8000, 0, "NONE", "not compressed"))
        out.writeframes(b"\x80" * 8000 * 25)
    upload(page, tmp_path / "long.wav", "audio")
    assert "25.0 s" in page.wait_for_selector("#status .failure >> text=long.wav").inner_text()
    (tmp_path / "large.mp4").write_bytes(bytes(4 << 20))
    upload(page, tmp_path / "large.mp4")
    page.wait_for_selector("text=/exceed|maximum|too large/i")


def write_silent_clip(file: Path) -> None:
    with av.open(str(file), "w") as out:
        stream = out.add_stream("h264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(20):
            frame = np.full((64, 64, 3), shade * 10, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


@pytest.mark.slow
def test_invalid_questions_are_errors_and_the_page_goes_on(server: Server, page: Any, tmp_path: Path) -> None:
    write_silent_clip(tmp_path / "silent.mp4")
    upload(page, tmp_path / "silent.mp4")
    page.wait_for_selector(".medium >> text=no audio")
    assert "no audio" in ask(page, "Who?").locator(".note").inner_text()
    page.check("#view input[value=A]")
    assert "no audio" in ask(page, "Which words?").locator(".failure").inner_text()
    page.check("#view input[value=text]")
    assert ask(page, "Hello?").locator(".failure, .inputs img").count() == 0
    assert ask(page, " ").locator(".failure").inner_text() == "Write a question first."
    assert "ends turns" in ask(page, "<|im_end|>").locator(".failure").inner_text()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_upload_is_deleted_with_the_last_page_that_uses_it(server: Server, browser: Any, tmp_path: Path) -> None:
    pages = [browser.new_context().new_page() for _ in range(2)]
    for page in pages:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("#question textarea")
        upload(page, write_clip(server.clips, tmp_path, "shared.mp4"))
        page.wait_for_selector(".medium >> text=shared.mp4")
    pages[0].context.close()
    time.sleep(1.0)
    assert server.find_uploads("shared.mp4")
    assert ask(pages[1], "Who?").locator(".answer").count() == 1
    pages[1].context.close()
    assert server.is_deleted("shared.mp4")


@pytest.mark.slow
def test_examples_can_be_opened(server: Server, page: Any) -> None:
    buttons = page.locator("#examples button")
    assert buttons.count() >= 2
    for number in range(buttons.count()):
        buttons.nth(number).click()
        name = buttons.nth(number).inner_text().strip()
        page.wait_for_selector(f".medium b >> text={name}")
        page.wait_for_function("document.querySelector('#question textarea').value.length > 5")
        assert ask(page, "What is this?").locator(".answer").count() == 1


def test_other_files_are_not_served(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    example = next(server.folder.glob("omnihuman-chat-*/examples/*"))
    paths = [
        "/etc/passwd",
        "/etc/passwd%00.mp4",
        "/proc/self/environ",
        "//etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "pyproject.toml",
        ".git/config",
        f"{Path.cwd()}/pyproject.toml",
        str(secret),
        str(server.log),
        str(example.parent),
        f"{example.parent}/../../log.txt",
        f"{example.parent}/%2e%2e/%2e%2e/log.txt",
    ]
    for path in paths:
        assert server.request_status(f"/gradio_api/file={path}") in (400, 403, 404), path
    assert server.request_status(f"/gradio_api/file={example}") == 200


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/openapi.json",
        "/monitoring",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/proxy=http://a.b/",
        "/gradio_api/call/ask",
        "/gradio_api/api/ask",
        "/gradio_api/run/ask",
        "/gradio_api/runs",
        "/gradio_api/vibe-code",
        "/gradio_api/process_recording",
        "/gradio_api/run-history/connect",
    ],
)
def test_api_of_gradio_is_not_available(server: Server, path: str) -> None:
    assert server.request_status(path) == 404 and server.request_status(path, method="POST") == 404


def test_other_host_names_are_rejected(server: Server) -> None:
    assert server.request_status("/", host="evil.example") == 403


SEND_CALL = """async body => {
    const headers = {"Content-Type": "application/json"};
    const response = await fetch("/gradio_api/queue/join", {method: "POST", body, headers});
    if (response.status != 200) return String(response.status);
    return (await fetch("/gradio_api/queue/data?session_hash=attacker")).text();
}"""


def test_forged_calls_cannot_open_files_that_are_no_uploads(server: Server, page: Any) -> None:
    config = page.evaluate("window.gradio_config")
    video = next(item["id"] for item in config["components"] if item["props"].get("elem_id") == "video")
    call = next(item["id"] for item in config["dependencies"] if item["inputs"] == [video])
    uploads = next(server.folder.glob("omnihuman-chat-*/uploads"))
    victim = sorted(server.clips.glob("*.mp4"))[0]
    missing = f"{uploads}/missing/folder/none.mp4"
    paths = [str(victim), "/etc/passwd", f"{uploads}/../log.txt", "http://127.0.0.1:1/a.mp4", str(uploads), "", missing]
    for path in paths:
        for extra in ({}, {"is_stream": True}, {"url": "http://127.0.0.1:1/a.mp4"}):
            payload = {"path": path, "orig_name": "a.mp4", "meta": {"_type": "gradio.FileData"}, **extra}
            body = json.dumps({"data": [payload], "fn_index": call, "session_hash": "attacker"})
            response = page.evaluate(SEND_CALL, body)
            if path == missing:  # it passes the guard, but there is no file
                assert response == "403" or 'class=\\"medium' not in response, response[-500:]
            else:
                assert response == "403", response[-500:]
    assert not server.find_uploads(victim.name) and not server.find_uploads("passwd") and victim.is_file()
