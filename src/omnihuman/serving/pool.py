"""Processes with one model each, and the queue of questions that they share."""

import asyncio
import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from omnihuman.serving.completions import Question

logger = logging.getLogger(__name__)
Reply = dict[str, Any]
"""A message to a client: ``text`` and, in the last one, ``end``; or an ``error``."""

Replies = asyncio.Queue[Reply | None]
"""Replies to one question; ``None`` follows the last one."""

context = multiprocessing.get_context("spawn")


@dataclass(eq=False)
class Ticket:
    """A question that a client waits for, and the replies to it."""

    question: Question
    loop: asyncio.AbstractEventLoop
    replies: Replies = field(default_factory=asyncio.Queue)

    def send(self, reply: Reply | None) -> None:
        """Send a reply from a thread."""
        with suppress(RuntimeError):  # the server has ended
            self.loop.call_soon_threadsafe(self.replies.put_nowait, reply)


class Pool:
    """Keeps one process for each device, and gives the waiting questions to those that are idle.

    A batch holds the questions that arrived while its process was busy; it waits for no further ones. A process that
    crashes fails the questions of its batch and is replaced. One that cannot load its model ends the server.

    Args:
        target: run in each process with the end of a pipe and a device. It sends ``None`` when its model answers, or
            the reason why it never will. Then it receives lists of questions, and for each it sends replies with the
            question's position, and ``None``.
        devices: one for each process.
        batch_size: largest number of questions of a batch.
    """

    def __init__(self, target: Callable[[Connection, str], None], devices: Sequence[str], batch_size: int) -> None:
        self.target, self.devices, self.batch_size = target, devices, batch_size
        self.waiting: deque[Ticket] = deque()
        self.ready: set[int] = set()
        self.load_seconds = 0.0
        self.num_crashes = self.num_in_flight = 0
        self.failure: str | None = None
        self._arrival = threading.Condition()
        self._processes: dict[int, BaseProcess] = {}
        self.is_closed = False

    @contextmanager
    def run(self, end_server: Callable[[], None]) -> Iterator[None]:
        """Start the processes, and end them after the block.

        Args:
            end_server: called where a model cannot be loaded; the reason is in ``failure``.
        """
        for number, device in enumerate(self.devices):
            threading.Thread(target=self._keep_process, args=(number, device, end_server), daemon=True).start()
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End the processes; all questions end without an answer."""
        self.is_closed = True
        for process in [*self._processes.values()]:
            process.kill()  # its files belong to this process
        self._drop_waiting()

    @contextmanager
    def submit(self, question: Question) -> Iterator[Replies]:
        """Queue a question while its client waits, and return the replies to it."""
        ticket = Ticket(question, asyncio.get_running_loop())
        with self._arrival:
            self.waiting.append(ticket)
            self._arrival.notify()
        try:
            yield ticket.replies
        finally:
            with self._arrival, suppress(ValueError):
                self.waiting.remove(ticket)

    def _keep_process(self, number: int, device: str, end_server: Callable[[], None]) -> None:
        """Start a process, and another one after every crash."""
        while not self.is_closed:
            failure = self._run_process(number, device)
            if failure is None or self.is_closed:
                continue
            self.failure = failure
            self._drop_waiting()
            end_server()
            return

    def _drop_waiting(self) -> None:
        with self._arrival:
            for ticket in self.waiting:
                ticket.send(None)

    def _run_process(self, number: int, device: str) -> str | None:
        """Run a process to its end, and return the reason if it has not loaded its model."""
        start, name = time.monotonic(), f"model {number} on {device}"
        connection, end = context.Pipe()
        process = context.Process(target=self.target, args=(end, device), daemon=True)
        process.start()
        end.close()
        self._processes[number] = process
        if self.is_closed:
            process.kill()
        try:
            failure: str | None = connection.recv()
        except EOFError:
            process.join()
            failure = f"{name} was not loaded: its process ended with exit code {process.exitcode}."
        if failure is not None:
            return failure
        self.load_seconds = time.monotonic() - start
        self.ready.add(number)
        try:
            while process.is_alive():
                self._answer(connection, self._take_batch())
        except (EOFError, OSError):
            pass
        except Exception:  # a question or a reply that cannot be sent: a fault of the program
            logger.exception("%s", name)
            process.kill()
        self.ready.remove(number)
        process.join()
        if not self.is_closed:
            self.num_crashes += 1
            logger.error("%s: its process ended with exit code %d; another one is loading", name, process.exitcode)
        return None

    def _take_batch(self) -> list[Ticket]:
        """Return the questions that wait, after a second at most; the process may have ended since."""
        with self._arrival:
            self._arrival.wait_for(lambda: self.waiting, timeout=1.0)
            return [self.waiting.popleft() for _ in range(min(len(self.waiting), self.batch_size))]

    def _answer(self, connection: Connection, batch: Sequence[Ticket]) -> None:
        if not batch:
            return
        with self._arrival:
            self.num_in_flight += len(batch)
        try:
            connection.send([ticket.question for ticket in batch])
            while (message := connection.recv()) is not None:
                position, reply = message
                batch[position].send(reply)
        finally:
            with self._arrival:
                self.num_in_flight -= len(batch)
            for ticket in batch:
                ticket.send(None)


def list_devices(accelerator: str, devices: int, workers_per_device: int) -> list[str]:
    """Return the device of each process.

    Raises:
        ValueError: this machine has fewer devices.
    """
    import torch

    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": devices, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if accelerator not in available:
        raise ValueError(f"accelerator={accelerator}: expected auto, {', '.join(available)}.")
    if not 1 <= devices <= available[accelerator]:
        raise ValueError(f"devices={devices}: this machine has {available[accelerator]} of accelerator={accelerator}.")
    names = [accelerator]
    if accelerator == "cuda":
        names = [f"cuda:{index}" for index in range(devices)]
    elif accelerator == "cpu":
        names *= devices
    return names * workers_per_device
