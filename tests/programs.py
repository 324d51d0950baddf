"""Run programs of the package in processes of their own that need not import torch again.

They are forked from a server process that has imported the heavy packages once. What a test shows about the imports
themselves needs a new interpreter instead.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeVar

T = TypeVar("T")

HEAVY = ["torch", "transformers", "omnihuman.training.stage", "omnihuman.inference.answerer", "omnihuman.hub.export"]
"""Modules that the server imports; no verb, because ``runpy`` warns of a program that is imported already."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(HEAVY)


class Program:
    """A running ``python -m <module> <arguments>``.

    Args:
        module: the program.
        arguments: of its command line.
        environment: variables in addition to those of this process.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.command = [module, *arguments]
        self.folder = tempfile.TemporaryDirectory()
        variables = {**os.environ, **(environment or {})}
        self.process = _context.Process(target=_run, args=(self.command, self.folder.name, variables, os.getcwd()))
        self.process.start()

    def wait(self, timeout: float = 300) -> CompletedProcess[str]:
        """Return exit code and output; a program that does not end in time is killed."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        output, errors = (Path(self.folder.name, name).read_text() for name in ("stdout", "stderr"))
        self.folder.cleanup()
        assert self.process.exitcode is not None
        return CompletedProcess(self.command, self.process.exitcode, output, errors)


def run_program(module: str, *arguments: str, **environment: str) -> CompletedProcess[str]:
    """Run ``python -m <module> <arguments>`` to its end."""
    return Program(module, *arguments, environment=environment).wait()


def start_ranks(num_ranks: int, module: str, *arguments: str, **environment: str) -> list[Program]:
    """Start a program on several ranks of one machine, as ``torchrun`` does."""
    port, programs = find_port(), []
    for rank in range(num_ranks):
        variables = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
        }
        programs.append(Program(module, *arguments, environment=variables | environment))
    return programs


def run_ranks(num_ranks: int, module: str, *arguments: str) -> None:
    """Run a program on several ranks to its end; a rank that fails is shown."""
    for rank, program in enumerate(start_ranks(num_ranks, module, *arguments)):
        process = program.wait()
        assert process.returncode == 0, f"rank {rank}: {process.stdout[-3000:]}{process.stderr[-3000:]}"


def call_on_ranks(num_ranks: int, function: Callable[..., T], *arguments: Any) -> list[T]:
    """Call a function of a module on several ranks of a process group, and return what it returns on each."""
    port = find_port()
    with ProcessPoolExecutor(num_ranks, mp_context=_context) as pool:
        calls = [pool.submit(_call, rank, num_ranks, port, function, *arguments) for rank in range(num_ranks)]
        return [call.result() for call in calls]


def find_port() -> int:
    """Return a port of this machine that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def launch_two_ranks(*overrides: str) -> CompletedProcess[str]:
    """Train on two ranks that Lightning itself starts, in new interpreters as a user's are."""
    command = [sys.executable, "-m", "omnihuman.train", *overrides, "trainer.accelerator=cpu", "trainer.devices=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)


def _run(command: list[str], folder: str, variables: dict[str, str], work: str) -> None:
    """Become a program: its streams, environment, folder and command line."""
    sys.stdout.flush()
    sys.stderr.flush()
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(work)
    module, *arguments = command
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def _call(rank: int, num_ranks: int, port: int, function: Callable[..., T], *arguments: Any) -> T:
    import torch.distributed as dist

    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", address, timedelta(minutes=2), rank=rank, world_size=num_ranks)
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()
