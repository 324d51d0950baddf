"""Blocks of entries, which several processes work on; what becomes of them comes in order."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, islice
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar, runtime_checkable

from omnihuman.data.record import Entry
from omnihuman.data.tasks import RecordSource

Block = list[Entry]
Read = Callable[[int, int], Iterator[Block]]
"""The number of the first block, and the step to the next one -> these blocks."""

Item = TypeVar("Item")
Result = TypeVar("Result")

ALLOCATIONS = 10**5
"""Objects after which Python looks for cycles while it plans; a record is many objects, and no cycle."""


@runtime_checkable
class RawSource(RecordSource, Protocol):
    """A source that can pass over entries without parsing them."""

    def read_raw(self) -> Iterator[Any]:
        """Yield the entries as they are stored."""

    def parse_raw(self, raw: Any) -> Entry:
        """Return a record, or the id of an invalid one and its error."""


def read_blocks(source: RecordSource, size: int, first: int, step: int) -> Iterator[Block]:
    """Yield some of the blocks of a source; those between them are not parsed, if the source can do so.

    Args:
        source: of the records.
        size: entries of a block.
        first: number of the first block.
        step: from a block to the next one.
    """
    if isinstance(source, RawSource):
        for block in _select_blocks(source.read_raw(), size, first, step):
            yield list(map(source.parse_raw, block))
    else:
        yield from _select_blocks(source.records(), size, first, step)


def _select_blocks(items: Iterable[Item], size: int, first: int, step: int) -> Iterator[list[Item]]:
    for number, block in enumerate(split_items(items, size)):
        if number % step == first:
            yield block


def split_items(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists of a size; the last one may be shorter.

    >>> list(split_items("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    remaining = iter(items)
    while block := list(islice(remaining, size)):
        yield block


def map_blocks(
    read: Read, act: Callable[[Block], Result], num_processes: int, finish: Callable[[], None]
) -> Iterator[Result]:
    """Yield what a function makes of each block, in order.

    Args:
        read: yields blocks.
        act: the function.
        num_processes: that share the blocks, forked from this one; 1: this one alone.
        finish: called at the end in each process that has worked, also after an error.

    Raises:
        ChildProcessError: a process has ended without a word, such as for lack of memory.
        Exception: of the function or of the source.
    """
    if num_processes > 1:
        yield from _map_in_processes(read, act, num_processes, finish)
        return
    try:
        with rare_collections():
            yield from map(act, read(0, 1))
    finally:
        finish()


def _map_in_processes(
    read: Read, act: Callable[[Block], Result], num_processes: int, finish: Callable[[], None]
) -> Iterator[Result]:
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(num_processes)]
    processes = []
    for number in range(num_processes):
        process = context.Process(target=_work, args=(read, act, finish, pipes, number), daemon=True)
        process.start()
        processes.append(process)
    for _, sender in pipes:
        sender.close()
    try:
        for number in count():  # a block of each process in turn
            message = _receive(pipes[number % num_processes][0])
            if not message:
                return
            yield message[0]
    finally:
        for receiver, _ in pipes:
            receiver.close()
        for process in processes:
            process.join()


def _receive(receiver: Connection) -> Sequence[Any]:
    """Return what a process has made of a block, in a list; an empty one at the end.

    Raises:
        ChildProcessError: the process has ended.
        Exception: that it has met.
    """
    try:
        message = receiver.recv()
    except EOFError as error:
        raise ChildProcessError(
            "a process that plans records has ended without a word, perhaps for lack of memory: choose fewer processes."
        ) from error
    if isinstance(message, BaseException):
        raise message
    return list(message)


def _work(
    read: Read,
    act: Callable[[Block], Any],
    finish: Callable[[], None],
    pipes: Sequence[tuple[Connection, Connection]],
    number: int,
) -> None:
    """Send what becomes of the blocks of one of several processes."""
    sender = pipes[number][1]
    for receiver, other in pipes:  # so that a process ends when the one that reads does
        receiver.close()
        if other is not sender:
            other.close()
    try:
        with rare_collections(), suppress(BrokenPipeError):
            for block in read(number, len(pipes)):
                sender.send((act(block),))
            sender.send(())
    except Exception as error:
        _send_error(sender, error)
    finally:
        finish()
        sender.close()


def _send_error(sender: Connection, error: Exception) -> None:
    with suppress(BrokenPipeError):
        try:
            sender.send(error)
        except (TypeError, AttributeError):  # it cannot be pickled
            sender.send(RuntimeError(f"{type(error).__name__}: {error}"))


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for cycles of objects less often."""
    before = gc.get_threshold()
    gc.set_threshold(ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
