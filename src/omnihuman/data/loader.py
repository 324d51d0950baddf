"""Loader of packed batches, resumable in the middle of an epoch."""

import gc
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from omnihuman.data.dataset import Samples
from omnihuman.data.packing import MicroBatch, Step
from omnihuman.data.prefetch import count_ahead
from omnihuman.data.record import BadSample
from omnihuman.types import Batch, Batches

NUM_FIRST = 100
"""Steps by which the size of the others is judged: an epoch may have a hundred thousand of them."""

TIMED_OUT = re.compile(r"DataLoader timed out after ([\d.]+) seconds")
"""Message of a loader whose worker hangs."""


class Loader(DataLoader[Any]):
    """A loader of optimizer steps, whose state is two integers: the epoch, and the number of its steps that it yielded.

    It yields the micro-batches of a step as a tuple of batches; its workers decode one micro-batch at a time.

    The trainer sets the epoch through ``set_epoch`` of the sampler. An iteration begins at the first step of the
    epoch; only the first iteration after ``load_state_dict`` begins in the middle.

    Reference: a plain DataLoader replays the epoch from its first batch when Lightning resumes.

    Args:
        samples: map a micro-batch to a batch.
        pack_epoch: epoch -> its steps.
        num_workers: processes that decode; 0 decodes in this one.
        timeout: seconds per file; a worker that hangs for longer is an error.
        keep_workers: the workers stay from one epoch to the next.
        prefetch_mb: 10^6 bytes of the batches that all workers load ahead; each loads at least one.
    """

    def __init__(
        self,
        samples: Samples,
        pack_epoch: Callable[[int], Sequence[Step]],
        *,
        num_workers: int = 0,
        timeout: float = 60.0,
        keep_workers: bool = False,
        prefetch_mb: int | float = 1000,
    ) -> None:
        self.pack_epoch = lru_cache(maxsize=2)(pack_epoch)
        self.epoch, self.num_yielded, self.is_restored = 0, 0, False
        first = list(chain.from_iterable(self.pack_epoch(0)[:NUM_FIRST]))
        largest = max((len(micro_batch.indices) for micro_batch in first), default=1)
        # Reading stops by itself after `timeout`; this catches reads that cannot be stopped, as of a dead network disk.
        worker_timeout = 60 + 2 * timeout * largest if num_workers else 0
        # a worker that is started anew, the default of Python 3.14, would get a copy of the encoders
        context = "fork" if num_workers and sys.platform == "linux" else None
        super().__init__(
            _BadSamplesAsValues(samples),
            batch_size=None,
            # no cycle: where the collector of garbage finds a loader, its workers no longer hear that they shall end
            sampler=_RemainingMicroBatches(weakref.proxy(self)),
            num_workers=num_workers,
            timeout=worker_timeout,
            worker_init_fn=_freeze_inherited,
            generator=torch.Generator(),  # the global one stays untouched, so that a resumed run draws the same numbers
            multiprocessing_context=context,
            persistent_workers=keep_workers and num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=count_ahead(samples, first, num_workers, int(prefetch_mb * 1e6)) if num_workers else None,
        )

    def __iter__(self) -> Iterator[Batches]:  # type: ignore[override]
        if not self.is_restored:
            self.num_yielded = 0
        if self.num_workers and self._iterator is None:
            gc.collect()  # so that no worker inherits garbage, see _freeze_inherited
        batches = self._iterate_batches()
        for step in self.remaining_steps():
            gathered = tuple(islice(batches, len(step)))
            self.num_yielded, self.is_restored = self.num_yielded + 1, False
            yield gathered

    def _iterate_batches(self) -> Iterator[Batch]:
        try:
            for batch in super().__iter__():
                if isinstance(batch, BadSample):
                    raise batch
                yield batch
        except RuntimeError as error:
            raise explain_worker_error(error) from error

    def remaining_steps(self) -> Iterator[Step]:
        """Return the steps of the epoch that are not yielded yet at this moment; each is packed when it comes."""
        plan = self.pack_epoch(self.epoch)
        return map(plan.__getitem__, range(self.num_yielded, len(plan)))

    def __len__(self) -> int:
        return len(self.pack_epoch(self.epoch))

    def state_dict(self) -> dict[str, int]:
        """Return the state after a step."""
        return {"epoch": self.epoch, "steps": self.num_yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from a state."""
        self.epoch, self.num_yielded, self.is_restored = state["epoch"], state["steps"], True

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch; for the current one, nothing happens."""
        if epoch != self.epoch:
            self.epoch, self.num_yielded, self.is_restored = epoch, 0, False


def explain_worker_error(error: RuntimeError) -> Exception:
    """Return the error of a worker that hangs or was killed; another one as it is."""
    if match := TIMED_OUT.search(str(error)):
        return TimeoutError(
            f"a data worker has not answered for {match[1]} s: the disk of data.root does not answer, or data.timeout "
            "is too short. The same command resumes from the last checkpoint."
        )
    if "exited unexpectedly" in str(error) or "killed by signal" in str(error):
        reason = str(error).partition(". ")[0]
        return ChildProcessError(f"{reason}: it ran out of memory, or was stopped: lower data.num_workers.")
    return error


class _RemainingMicroBatches:
    """Iterates over the micro-batches that are left; Lightning calls ``set_epoch`` of a loader's sampler."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[MicroBatch]:
        return chain.from_iterable(self.loader.remaining_steps())


def _freeze_inherited(worker: int) -> None:
    """Exempt inherited objects from garbage collection.

    A forked worker that frees FFmpeg objects of its parent waits for their threads, which do not exist in the worker.
    """
    gc.freeze()


class _BadSamplesAsValues(Dataset[Any]):
    """Returns a ``BadSample`` as a value: a DataLoader turns exceptions of workers into RuntimeErrors."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, micro_batch: MicroBatch) -> Batch | BadSample:
        try:
            return self.samples[micro_batch]
        except BadSample as bad:
            return bad
