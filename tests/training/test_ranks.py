"""A process whose peer has ended names it, and ends."""

import os
import select
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from omnihuman.training import ranks
from omnihuman.training.ranks import explain_ended_process

LOST = "gloo/transport/tcp/pair.cc:538 Connection closed by peer [127.0.0.1]:1234"


def build_trainer(*processes: subprocess.Popen[bytes], world_size: int = 2) -> SimpleNamespace:
    launcher = SimpleNamespace(procs=processes) if processes else None
    return SimpleNamespace(world_size=world_size, strategy=SimpleNamespace(launcher=launcher))


@pytest.mark.parametrize(("code", "text"), [("os.kill(os.getpid(), 9)", "SIGKILL"), ("os._exit(3)", "exit code 3")])
def test_the_rank_that_has_ended_is_named(code: str, text: str) -> None:
    with (
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as first,
        subprocess.Popen([sys.executable, "-S", "-c", f"import os; {code}"]) as second,
    ):
        expected = pytest.raises(ChildProcessError, match=rf"rank 2 \(process {second.pid}\) .*{text}.*last checkpoint")
        with expected, explain_ended_process(build_trainer(first, second)):
            raise RuntimeError(LOST)
        first.kill()


def test_a_rank_that_has_started_no_others_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "PATIENCE", 0.01)
    with pytest.raises(ChildProcessError, match="its output"), explain_ended_process(build_trainer()):
        raise RuntimeError(LOST)


@pytest.mark.parametrize(("message", "world_size"), [("shapes differ", 2), ("Broken pipe", 1)])
def test_other_errors_stay_as_they_are(message: str, world_size: int) -> None:
    with pytest.raises(RuntimeError, match=message), explain_ended_process(build_trainer(world_size=world_size)):
        raise RuntimeError(message)


def test_a_data_worker_that_is_killed_in_a_step_is_explained() -> None:
    trainer = build_trainer(world_size=1)
    with pytest.raises(ChildProcessError, match=r"pid 7.*data\.num_workers"), explain_ended_process(trainer):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def test_a_process_ends_after_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(ranks, "GRACE", 0.0)
    ranks.end_with_launcher.cache_clear()
    read, write = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if os.fork() == 0:
            ranks.end_with_launcher()
            os.write(write, b"x")
            time.sleep(100)
        os.read(read, 1)
        os._exit(0)
    os.close(write)
    os.waitpid(launcher, 0)
    ready, _, _ = select.select([read], [], [], 30)
    assert ready and os.read(read, 1) == b"", "the pipe is closed when the other one has ended, too"
    os.close(read)
