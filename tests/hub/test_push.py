"""Uploads, by the real client of the hub against a server of our own."""

import base64
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from omnihuman import export
from omnihuman.hub.push import list_files, push, read_token

NAME = "someone/humanomni-mine"


class Hub(ThreadingHTTPServer):
    """A hub in memory that stores every file in a commit, without LFS and Xet."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict[str, bytes]()
        self.created = list[dict[str, Any]]()
        self.tokens = set[str | None]()
        self.private = True
        self.failures = dict[str, tuple[int, str]]()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if "info" in self.server.failures:
            status, message = self.server.failures["info"]
            self._reply({"error": message}, status)
            return
        self._reply({"_id": "1", "id": NAME, "modelId": NAME, "private": self.server.private, "sha": "0" * 40})

    def do_POST(self) -> None:
        hub, verb = self.server, self.path.split("?")[0].split("/")[-2 if NAME in self.path else -1]
        body = self.rfile.read(int(self.headers["content-length"]))
        hub.tokens.add(self.headers["authorization"])
        if verb in hub.failures:
            status, message = hub.failures[verb]
            self._reply({"error": message}, status)
        elif verb == "create":
            hub.created.append(json.loads(body))
            self._reply({"url": f"{hub.url}/{NAME}", "name": NAME})
        elif verb == "validate-yaml":  # of the card
            self._reply({"errors": [], "warnings": []})
        elif verb == "preupload":
            files = json.loads(body)["files"]
            self._reply(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif verb == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._reply({"commitOid": "0" * 40, "commitUrl": f"{hub.url}/{NAME}/commit/0"})

    def _reply(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def call_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    def call(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["omnihuman"])
        monkeypatch.chdir(tmp_path)
        export.main(list(arguments))

    yield call
    HydraConfig.instance().cfg = None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the names of an export."""
    for name in ("config.json", "model.safetensors", "README.md", "instruction_tokenizer/tokenizer.json"):
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path / "mine"


def test_pushed_files_are_those_of_the_export(
    hub: Hub,
    call_export: Callable[..., None],
    make_run: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_export(f"run={make_run('favchat_stage3')}", f"push={NAME}")
    folder, output = tmp_path / "exports" / "humanomni-mine", capsys.readouterr().out
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert hub.files == files and "model.safetensors" in files
    assert hub.created == [{"name": "humanomni-mine", "organization": "someone", "visibility": "private"}]
    assert hub.tokens == {"Bearer hf_secret"} and "hf_secret" not in output
    assert f"pushing {len(files)} files" in output and f"pushed to {hub.url}/{NAME}" in output
    assert all(name in output.partition("pushing")[2] for name in files)
    assert f'folder = "{NAME}"' in (folder / "README.md").read_text()


def test_complete_folder_is_pushed_again_without_its_run(
    hub: Hub, folder: Path, call_export: Callable[..., None]
) -> None:
    hub.failures["commit"] = (403, "Forbidden: pass a token with write access")
    with pytest.raises(ValueError, match=r"status 403 .*write access.*HF_TOKEN") as error:
        push(folder, NAME, token="hf_secret")
    assert "\n" not in str(error.value) and "hf_secret" not in str(error.value)
    command = re.findall(r"omnihuman export (.*)$", str(error.value))[0]
    hub.failures.clear()
    call_export(*command.split())
    assert hub.files["instruction_tokenizer/tokenizer.json"] == b"instruction_tokenizer/tokenizer.json"


@pytest.mark.parametrize(("status", "message"), [(401, "Invalid credentials"), (500, "Internal error")])
def test_refusal_is_one_line(hub: Hub, folder: Path, status: int, message: str) -> None:
    hub.failures["create"] = hub.failures["info"] = (status, message)
    with pytest.raises(ValueError, match=f"{NAME}: .*status {status} .{message}") as error:
        push(folder, NAME, token="hf_secret")
    assert "\n" not in str(error.value) and not hub.files
    assert ("HF_TOKEN" in str(error.value)) is (status == 401)


def test_no_network_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=rf"{NAME}: .*cannot be reached.*out={folder} push={NAME}") as error:
        push(folder, NAME, token="hf_secret")
    assert "\n" not in str(error.value)


def test_public_repository_gets_no_private_push(hub: Hub, folder: Path) -> None:
    hub.private = False
    with pytest.raises(ValueError, match="public: add private=false"):
        push(folder, NAME, token="hf_secret")
    assert not hub.files
    push(folder, NAME, token="hf_secret", private=False)
    assert set(hub.files) == set(list_files(folder))
    assert hub.created[-1]["visibility"] == "public"


@pytest.mark.parametrize(
    "name", ["metrics.csv", "config.yaml", "weights.safetensors", "data/train.json", "clip.mp4", "evaluation/README.md"]
)
def test_files_of_a_run_are_refused(hub: Hub, folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("private")
    with pytest.raises(ValueError, match=rf"out={folder}: {name} .*remove it"):
        push(folder, NAME, token="hf_secret")
    assert not hub.created


def test_link_and_run_folder_are_refused(folder: Path, make_run: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no exported folder"):
        list_files(make_run("favchat_stage3"))
    (tmp_path / "secret.json").write_text("private")
    (folder / "vocab.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"vocab\.json"):
        list_files(folder)


def test_token_and_name_are_checked_before_the_export(
    call_export: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for arguments, message in (
        (["run=any", f"push={NAME}"], f"push={NAME}: .*HF_TOKEN"),
        (["run=any", "push=mine"], "push=mine: .*owner/name"),
        (["run=any"], "out .*add out="),
        ([f"out={tmp_path}"], "run .*add run="),
    ):
        with pytest.raises(SystemExit, match=message):
            call_export(*arguments)
    assert not (tmp_path / "exports").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert read_token(NAME) == "hf_secret"
    (tmp_path / "exports" / "humanomni-mine").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"out=exports/humanomni-mine exists"):
        call_export("run=any", f"push={NAME}")
