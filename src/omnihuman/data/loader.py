"""Loader: batches in the order of the plan, from where an interrupted run stopped."""

import gc
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from omnihuman.data.dataset import Samples
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample
from omnihuman.types import Batch


class Loader(DataLoader[Any]):
    """A loader whose whole state is two integers: the epoch, and how many batches of it were handed out.

    The trainer says which epoch it is, through the sampler's ``set_epoch``. A pass begins at the epoch's first batch;
    only the first one after ``load_state_dict`` goes on in the middle.

    Reference: a plain DataLoader replays the epoch from its first batch when Lightning resumes.

    Args:
        samples: map a row to a batch.
        plan: the rows of an epoch.
        num_workers: processes that decode; 0 decodes in this one.
        timeout: seconds for one file; a worker that hangs for longer is an error.
        options: of the DataLoader.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Callable[[int], list[Row]],
        *,
        num_workers: int = 0,
        timeout: float = 60.0,
        **options: Any,
    ) -> None:
        self.plan = lru_cache(maxsize=2)(plan)
        self.epoch, self.handed, self.restored = 0, 0, False
        largest = max((len(row.samples) for row in self.plan(0)), default=0)
        super().__init__(
            _Caught(samples),
            batch_size=None,
            sampler=_Rows(self),
            num_workers=num_workers,
            # reading stops by itself; this is for what it cannot stop, such as a dead network disk
            timeout=60 + timeout * max(1, largest) if num_workers else 0,
            worker_init_fn=_keep_inherited,
            generator=torch.Generator(),  # leaves the global one alone, so that a resumed run draws the same
            **options,
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if not self.restored:
            self.handed = 0
        if self.num_workers:
            gc.collect()  # so that no worker inherits garbage, see _keep_inherited
        for batch in super().__iter__():
            if isinstance(batch, BadSample):
                raise batch
            self.handed, self.restored = self.handed + 1, False
            yield batch

    def __len__(self) -> int:
        return len(self.plan(self.epoch))

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands."""
        return {"epoch": self.epoch, "handed": self.handed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.epoch, self.handed, self.restored = state["epoch"], state["handed"], True

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch; the one that is under way goes on."""
        if epoch != self.epoch:
            self.epoch, self.handed, self.restored = epoch, 0, False


class _Rows:
    """The rows that are still to come; Lightning tells a loader's sampler which epoch it is."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.loader.plan(self.loader.epoch)[self.loader.handed :])

    def __len__(self) -> int:
        return len(self.loader)


def _keep_inherited(worker: int) -> None:
    """A forked worker that frees FFmpeg objects of its parent would wait for their threads, which it does not have."""
    gc.freeze()


class _Caught(Dataset[Any]):
    """Hands a ``BadSample`` over as a value: a DataLoader would turn what a worker raises into a RuntimeError."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, row: Row) -> Batch | BadSample:
        try:
            return self.samples[row]
        except BadSample as bad:
            return bad
