"""The page of reviewers, in a browser."""

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omnihuman.operator.verdicts import read_verdicts
from tests.curation.conftest import clips as clips
from tests.programs import Program, find_port, run_program
from tests.reviewing.conftest import run

NEW = "#keys:not(:has(.chosen))"
"""Buttons of a row without a verdict."""


@dataclass
class Server:
    """A running server of the page, with its address and the file of its verdicts."""

    url: str
    port: int
    file: Path

    def request(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse()

    @property
    def cookie(self) -> str:
        return f"omnihuman_review={self.url.partition('=')[2]}"


@pytest.fixture(scope="module")
def server(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page of four rows, of which two people judge each."""
    folder = tmp_path_factory.mktemp("page")
    out = folder / "out"
    with pytest.raises(ValueError, match=r"rows wait"):
        run(clips, out, share=1)
    port = find_port()
    program = Program("omnihuman.review", f"out={out}", f"port={port}")
    log = Path(program.folder.name, "stdout")
    try:
        match = None
        for _ in range(600):
            assert program.process.is_alive()
            if log.exists() and (match := re.search(r"http://\S+", log.read_text())):
                break
            time.sleep(0.1)
        server = Server(match[0], port, out / "reviews" / "review.jsonl") if match else None
        assert server is not None
        for _ in range(100):
            try:
                server.request("/")
                break
            except OSError:
                time.sleep(0.1)
        yield server
        os.kill(program.process.pid or 0, signal.SIGINT)
        assert "rows judged by two people: Cohen's kappa" in program.wait(20).stdout
    finally:
        program.process.kill()


@pytest.fixture
def open_page(server: Server, browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page for a person; it must request nothing from another machine."""
    urls: list[str] = []
    contexts = []

    def open_for(name: str, width: int = 1280, height: int = 720) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: urls.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(server.url)
        page.fill("#reviewer", name)
        page.press("#reviewer", "Enter")
        page.wait_for_selector("#keys >> visible=true")
        assert "token" not in page.url
        return page

    yield open_for
    for context in contexts:
        context.close()
    assert urls and not [url for url in urls if not url.startswith(f"http://127.0.0.1:{server.port}/")]


def press(page: Any, key: str, verdict: str) -> None:
    """Press a key, and wait until its verdict is saved."""
    page.keyboard.press(key)
    page.wait_for_selector(f"[data-verdict={verdict}].chosen")


def test_strangers_are_refused(server: Server) -> None:
    assert server.request("/").status == 401
    assert server.request("/?token=wrong").status == 401
    assert server.request("/next?reviewer=anna", cookie=f"{server.cookie}x").status == 401
    assert server.request("/next?reviewer=anna", cookie=server.cookie, host="evil.example").status == 403
    response = server.request(
        "/verdict", "POST", cookie=server.cookie, origin="http://evil.example", content_length="2"
    )
    assert response.status == 403
    response = server.request("/next?reviewer=anna", cookie=server.cookie)
    assert response.status == 200 and response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-store"


def test_media_answer_requests_for_ranges(server: Server) -> None:
    key = json.loads(server.request("/next?reviewer=anna", cookie=server.cookie).read())["row"]["key"]
    response = server.request(f"/media/{key}", cookie=server.cookie, range="bytes=4-7")
    assert response.status == 206 and response.read() == b"ftyp"
    assert server.request("/media/other", cookie=server.cookie).status == 404
    assert server.request("/media/..%2F..%2Fetc%2Fpasswd", cookie=server.cookie).status == 404


def test_two_people_judge_all_rows(server: Server, open_page: Any, tmp_path: Path) -> None:
    page = open_page("anna")
    page.wait_for_selector("#boxes[data-boxes='1']")
    assert page.locator("#show dd").inner_text() == "1"
    assert page.locator("#hidden_values dd").count() == 0  # of the machine, before the first verdict
    press(page, "a", "accept")
    assert page.locator("#hidden_values dd").inner_text() == "1" and page.locator("#next").is_enabled()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(NEW)
    length = len(page.locator("#fields textarea").input_value())
    page.keyboard.press("e")
    page.wait_for_selector("#fields textarea:read-write:focus")
    page.keyboard.type(", and no")  # no key of a verdict
    page.screenshot(path=str(tmp_path / "page.png"))
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("[data-verdict=edit].chosen")
    page.click("#next")
    page.wait_for_selector(NEW)
    press(page, "r", "reject")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-verdict=edit].chosen")  # the row before, with its verdict
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(NEW)
    press(page, "u", "unsure")
    page.keyboard.press("Enter")
    page.wait_for_selector("#end >> text=wait for another person")
    verdicts = read_verdicts(server.file)[0]
    assert [verdict.verdict for verdict in verdicts] == ["accept", "edit", "reject", "unsure"]
    assert verdicts[1].edits == {"speech": [(length, length, ", and no")]}
    assert not any(verdict.revised for verdict in verdicts)
    phone = open_page("ben", 390, 800)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    for _ in range(4):
        phone.click("[data-verdict=accept]")
        phone.wait_for_selector(".chosen")
        phone.click("#next")
        phone.wait_for_selector(f"{NEW}, #end:not([hidden])")
    phone.wait_for_selector("#end >> text=All rows are judged")
    assert len(read_verdicts(server.file)[0]) == 8


def test_a_verdict_that_changes_nothing_is_an_error(server: Server) -> None:
    key = read_verdicts(server.file)[0][0].key
    body = json.dumps({"reviewer": "anna", "key": key, "verdict": "edit", "values": {}})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/verdict", body, {"cookie": server.cookie})
    response = connection.getresponse()
    assert response.status == 400 and "Nothing has changed" in json.loads(response.read())["error"]


def test_a_second_server_is_refused(server: Server) -> None:
    result = run_program("omnihuman.review", f"out={server.file.parents[1]}")
    assert result.returncode == 1 and "another omnihuman review" in result.stderr
