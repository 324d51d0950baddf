"""The page, as somebody with a browser meets it."""

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

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ANSWER = "#past article"


@dataclass
class Served:
    port: int
    folder: Path  # private, of the server
    clips: Path
    log: Path
    process: subprocess.Popen[bytes]

    def status(self, path: str, host: str = "127.0.0.1", method: str = "GET") -> int:
        """Of a request whose path nobody tidies up on its way."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"{host}:{self.port}")
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    def uploads(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"*/uploads/**/{name}"))

    def gone(self, name: str) -> bool:
        for _ in range(100):
            if not self.uploads(name):
                return True
            time.sleep(0.1)
        return False


@pytest.fixture(scope="module")
def served(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The page of an untrained model, with the clips of a small corpus."""
    clips, private = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("private")
    (clips / "media").symlink_to(corpus / "media")
    shutil.copy(corpus / "val.json", clips / "test.json")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "omnihuman.chat", f"run={model_folder('humanomni_stage3')}", f"port={port}",
        f"examples={clips}", "max_upload=2", "max_seconds=20", "max_new_tokens=12",
    ]  # fmt: skip
    log = private / "log.txt"
    environment = os.environ | {"TMPDIR": str(private), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    page = Served(port, private, corpus / "media", log, process)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                if page.status("/") == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield page
        process.terminate()
        process.wait(20)
        assert not list(private.glob("omnihuman-chat-*"))  # nothing is left when the server stops
    finally:
        process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to open the page in")
    pytest.importorskip("playwright", reason="Playwright drives the browser: pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(served: Served, browser: Any) -> Iterator[Any]:
    """An open page; nothing it does may reach another machine, or end in a traceback."""
    opened, asked = browser.new_page(viewport={"width": 1400, "height": 900}), list[str]()
    opened.on("request", lambda request: asked.append(request.url))
    opened.set_default_timeout(15_000)
    opened.goto(f"http://127.0.0.1:{served.port}/")
    opened.wait_for_selector("#question textarea")
    yield opened
    text = opened.inner_text("body")
    opened.close()
    own = (f"http://127.0.0.1:{served.port}/", "data:", "blob:")
    assert asked and not [url for url in asked if not url.startswith(own)]
    assert "Traceback" not in text and str(served.folder) not in text


def give(page: Any, file: Path, kind: str = "video") -> None:
    page.click(f"#media [role=tab]:visible >> text={ {'video': 'Video', 'audio': 'Sound', 'image': 'Picture'}[kind] }")
    page.set_input_files(f"#{kind} input[type=file]", str(file))


def ask(page: Any, question: str) -> Any:
    number = page.locator(ANSWER).count()
    page.fill("#question textarea", question)
    page.click("#go")
    page.wait_for_function(f"document.querySelectorAll('{ANSWER}').length == {number + 1}")
    return page.locator(ANSWER).nth(number)


def fresh(media: Path, folder: Path, name: str, content: str = "train_talk*.mp4") -> Path:
    """A clip that no other test has uploaded."""
    made = folder / name
    made.write_bytes(sorted(media.glob(content))[0].read_bytes() + name.encode())
    return made


def test_a_clip_is_uploaded_asked_about_twice_and_deleted(served: Served, page: Any, tmp_path: Path) -> None:
    give(page, fresh(served.clips, tmp_path, "mine.mp4"))
    page.wait_for_selector(".placed >> text=mine.mp4")
    assert len(served.uploads("mine.mp4")) == 1
    modals = page.locator("#modal input").evaluate_all("all => all.map(one => one.value)")
    assert modals == ["video_audio", "video", "audio", "text"]
    first = ask(page, "What is <b>the</b> main {{emotion}}, ${1 + 1}?")
    assert first.locator(".question").inner_text() == "What is <b>the</b> main {{emotion}}, ${1 + 1}?"
    assert (
        first.locator(".film.frames img").count() == 8 and first.locator(".film small").first.inner_text()[-2:] == " s"
    )
    assert first.locator(".mel img").evaluate("picture => picture.naturalWidth") > 100
    weights = first.locator("[data-fusion=gate] li").evaluate_all("all => all.map(one => Number(one.dataset.weight))")
    assert len(weights) == 3 and sum(weights) == pytest.approx(1, abs=1e-3)
    widths = first.locator("[data-fusion=gate] b").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width)"
    )
    assert np.argmax(widths) == np.argmax(weights)
    told = first.locator(".figures").inner_text()
    assert all(word in told for word in ("video", "audio", "words", "new tokens", "time"))
    second = ask(page, "And why?")
    assert page.locator(ANSWER).count() == 2
    lengths = [int(one.locator(".figures dd").first.inner_text().split()[0]) for one in (first, second)]
    assert lengths[1] > lengths[0]  # the first question and its answer stand before the second
    page.screenshot(path=str(tmp_path / "page.png"))
    page.click("#clear")
    page.wait_for_selector(".empty")
    assert served.gone("mine.mp4") and page.locator(ANSWER).count() == 0
    assert page.locator("#modal input").evaluate_all("all => all.map(one => one.value)") == ["text"]


def test_what_cannot_be_used_is_said_and_the_page_goes_on(served: Served, page: Any, tmp_path: Path) -> None:
    whole = sorted(served.clips.glob("train_talk*.mp4"))[1].read_bytes()
    for name, content in (
        ("cut.mp4", whole[: len(whole) // 2]),
        ("letter.mp4", b"Dear model,\n" * 400),
        ("none.mp4", b""),
    ):
        (tmp_path / name).write_bytes(content)
        give(page, tmp_path / name)
        page.wait_for_selector(f"#status .failure >> text={name}")
        assert served.gone(name)
    with wave.open(str(tmp_path / "long.wav"), "wb") as out:
        out.setparams((1, 1, 8000, 0, "NONE", "not compressed"))
        out.writeframes(b"\x80" * 8000 * 25)
    give(page, tmp_path / "long.wav", "audio")
    assert "25.0 s" in page.wait_for_selector("#status .failure >> text=long.wav").inner_text()
    (tmp_path / "large.mp4").write_bytes(whole + bytes(3 << 20))
    give(page, tmp_path / "large.mp4")
    page.wait_for_selector("text=/exceed|maximum|too large/i")
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as made:
        stream = made.add_stream("h264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(20):
            picture = np.full((64, 64, 3), shade * 10, np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode())
    page.goto(f"http://127.0.0.1:{served.port}/")
    give(page, silent)
    page.wait_for_selector(".placed >> text=no sound")
    assert "no audio" in ask(page, "Who?").locator(".note").inner_text()
    page.check("#modal input[value=audio]")
    assert "no sound" in ask(page, "What is said?").locator(".failure").inner_text()
    page.check("#modal input[value=text]")
    assert ask(page, "Hello?").locator(".failure, .shown img").count() == 0
    assert ask(page, " ").locator(".failure").inner_text() == "Write a question first."
    assert "ends turns" in ask(page, "<|im_end|>").locator(".failure").inner_text()
    assert "Traceback" not in served.log.read_text()


def test_an_upload_goes_when_the_page_is_closed(served: Served, browser: Any, tmp_path: Path) -> None:
    pages = [browser.new_context().new_page() for _ in range(2)]
    for opened in pages:
        opened.goto(f"http://127.0.0.1:{served.port}/")
        opened.wait_for_selector("#question textarea")
        give(opened, fresh(served.clips, tmp_path, "shared.mp4"))
        opened.wait_for_selector(".placed >> text=shared.mp4")
    pages[0].context.close()
    time.sleep(1.0)
    assert served.uploads("shared.mp4")  # the other one still talks about it
    assert ask(pages[1], "Who?").locator(".answer").count() == 1
    pages[1].context.close()
    assert served.gone("shared.mp4")


def test_clips_of_the_corpus_are_offered(served: Served, page: Any) -> None:
    offered = page.locator("#examples button")
    assert offered.count() >= 2
    for number in range(offered.count()):
        offered.nth(number).click()
        name = offered.nth(number).inner_text().strip()
        page.wait_for_selector(f".placed b >> text={name}")
        page.wait_for_function("document.querySelector('#question textarea').value.length > 5")
        assert ask(page, "What is this?").locator(".answer").count() == 1


def test_nothing_else_of_the_machine_is_served(served: Served, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    inside = next(served.folder.glob("omnihuman-chat-*/examples/*"))
    paths = [
        "/etc/passwd",
        str(secret),
        str(served.log),
        "pyproject.toml",
        f"{Path.cwd()}/pyproject.toml",
        ".git/config",
    ]
    paths += [f"{inside.parent}/../../log.txt", f"{inside.parent}/%2e%2e/%2e%2e/log.txt", "/proc/self/environ"]
    paths += ["http://127.0.0.1:1/", "file:///etc/passwd", "//etc/passwd", f"{inside.parent}", "/etc/passwd%00.mp4"]
    for path in paths:
        assert served.status(f"/gradio_api/file={path}") in (400, 403, 404), path
    assert served.status(f"/gradio_api/file={inside}") == 200
    closed = ["/gradio_api/info", "/gradio_api/openapi.json", "/docs", "/openapi.json", "/gradio_api/proxy=http://a.b/"]
    closed += ["/gradio_api/call/ask", "/gradio_api/api/ask", "/gradio_api/run/ask", "/monitoring", "/gradio_api/runs"]
    closed += ["/gradio_api/vibe-code", "/gradio_api/process_recording", "/gradio_api/run-history/connect"]
    for path in closed:
        assert served.status(path) == 404 and served.status(path, method="POST") == 404, path
    assert served.status("/", host="evil.example") == 403


def test_a_path_of_the_server_is_not_taken_for_an_upload(served: Served, page: Any) -> None:
    """A client that writes its own messages names files that nobody has uploaded."""
    config = page.evaluate("window.gradio_config")
    video = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "video")
    call = next(one["id"] for one in config["dependencies"] if one["inputs"] == [video])
    uploads = next(served.folder.glob("omnihuman-chat-*/uploads"))
    victim = sorted(served.clips.glob("*.mp4"))[0]
    named = [str(victim), "/etc/passwd", f"{uploads}/../log.txt", "http://127.0.0.1:1/a.mp4", str(uploads), ""]
    for path in [*named, f"{uploads}/there/is/none.mp4"]:
        for more in ({}, {"is_stream": True}, {"url": "http://127.0.0.1:1/a.mp4"}):
            payload = {"path": path, "orig_name": "a.mp4", "meta": {"_type": "gradio.FileData"}, **more}
            told = page.evaluate(
                """async body => {
                    const headers = {"Content-Type": "application/json"};
                    const joined = await fetch("/gradio_api/queue/join", {method: "POST", body, headers});
                    if (joined.status != 200) return String(joined.status);
                    return (await fetch("/gradio_api/queue/data?session_hash=stranger")).text();
                }""",
                json.dumps({"data": [payload], "fn_index": call, "session_hash": "stranger"}),
            )
            assert told == "403" or "placed" not in told, told[-500:]
            assert told == "403" or path.endswith("none.mp4")
    assert not served.uploads(victim.name) and not served.uploads("passwd") and victim.is_file()
