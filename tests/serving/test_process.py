"""A serving process: its port, its private folder, and its end."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from omnihuman.serving.process import check_port, private_folder


def test_port_in_use_raises() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port={port}: Address already in use; .*port="):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99_999), ("192.0.2.1", 0), ("no.such.host.invalid", 0)])
def test_invalid_address_raises(host: str, port: int) -> None:
    with pytest.raises(ValueError, match=f"host={host} port={port}"):
        check_port(host, port)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A temporary folder with the folders of other processes: abandoned, new, and of another kind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = {
        "abandoned": tmp_path / "omnihuman-chat-a",
        "new": tmp_path / "omnihuman-chat-b",
        "other": tmp_path / "omnihuman-serve-c",
    }
    for folder in folders.values():
        folder.mkdir()
    (folders["abandoned"] / "clip.mp4").touch()
    (tmp_path / "omnihuman-chat-link").symlink_to(folders["other"])
    os.utime(folders["abandoned"], (0, 0))
    os.utime(folders["other"], (0, 0))
    return folders


def test_abandoned_folders_are_deleted(folders: dict[str, Path]) -> None:
    with private_folder("chat"):
        assert not folders["abandoned"].exists() and folders["new"].is_dir() and folders["other"].is_dir()


def test_folder_exists_while_its_process_uses_it(folders: dict[str, Path]) -> None:
    with private_folder("chat") as folder:
        os.utime(folder, (0, 0))
        with private_folder("chat"):
            assert folder.is_dir()
    assert not folder.exists()


PROCESS = """if 1:
    import multiprocessing, time
    from omnihuman.serving.process import end_with_parent

    def run():
        time.sleep({delay})
        end_with_parent()
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    print(process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("delay", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_process_ends_after_its_parent_was_killed(delay: int) -> None:
    """Also where the parent was killed before the process began to watch it."""
    start, code = time.monotonic(), PROCESS.format(delay=delay)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
        parent.stdout.read()  # returns when the child has ended, too
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(child, 0)
            time.sleep(0.1)
    assert time.monotonic() - start < 50  # it has not ended by itself
