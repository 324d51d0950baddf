"""Where a process listens, what it keeps, and how it ends."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from omnihuman.serving.process import check_port, private_folder


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port={port}: Address already in use; choose another"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    for host, port in (("127.0.0.1", 99_999), ("192.0.2.1", 0), ("no.such.host.invalid", 0)):
        with pytest.raises(ValueError, match=f"host={host} port={port}"):
            check_port(host, port)


def test_a_folder_goes_with_its_process_and_what_a_killed_one_left_goes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, new, other = tmp_path / "omnihuman-chat-a", tmp_path / "omnihuman-chat-b", tmp_path / "omnihuman-serve-c"
    for folder in (left, new, other):
        folder.mkdir()
    (left / "clip.mp4").touch()
    (tmp_path / "omnihuman-chat-link").symlink_to(other)
    for folder in (left, other):
        os.utime(folder, (0, 0))
    with private_folder("chat") as mine:
        assert mine.is_dir() and not left.exists() and new.is_dir() and other.is_dir()
        os.utime(mine, (0, 0))
        with private_folder("chat"):
            assert mine.is_dir()  # somebody holds it
    assert not mine.exists()


def test_a_process_ends_when_who_started_it_was_killed() -> None:
    code = """if 1:
        import os, time
        from omnihuman.serving.process import end_with_parent
        os.register_at_fork(after_in_child=end_with_parent)
        if (child := os.fork()):
            print(child, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        child = int(started.stdout.readline())
        os.kill(child, 0)
        started.kill()
        started.stdout.read()  # until nobody holds its end any more
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(child, 0)
            time.sleep(0.1)
