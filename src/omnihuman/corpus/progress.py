"""Progress of the writing of the built-in corpus."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ItemType = TypeVar("ItemType")


def track(items: Iterable[ItemType], total: int, label: str, every: float = 10.0) -> Iterator[ItemType]:
    """Yield the items, and show on stderr how many are done: a bar on a terminal, a line now and then elsewhere.

    Args:
        items: are produced while they are counted.
        total: number of items.
        label: of the work.
        every: seconds between two lines.
    """
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield from _print_lines(items, total, label, every)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, total=total, description=label)


def _print_lines(items: Iterable[ItemType], total: int, label: str, every: float) -> Iterator[ItemType]:
    print(f"{label}: 0 of {total}", file=sys.stderr, flush=True)
    last = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= every or number == total:
            last = time.monotonic()
            print(f"{label}: {number} of {total}", file=sys.stderr, flush=True)
