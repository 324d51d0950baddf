"""The data of a run: records, mixture, plan, loaders that resume exactly."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock

from omnihuman.data.chat import Chat
from omnihuman.data.datafile import read_records
from omnihuman.data.dataset import Layouts, Policy, Samples, Transforms
from omnihuman.data.face import FaceInput
from omnihuman.data.features import FeatureCache, Frozen
from omnihuman.data.loader import Loader
from omnihuman.data.plan import Row, Source, plan_epoch, rows_per_step, shuffled, source_of
from omnihuman.data.record import MODALS, BadSample, Record
from omnihuman.pl import pl
from omnihuman.types import Batch


class OmniData(pl.LightningDataModule):
    """Train and validation batches of packed rows.

    Args:
        records: data file, or list of data files or ``{path, weight}``; a weight of 0.5 uses half of a file in each
            epoch (another half in the next), 2 uses it twice.
        root: folder of the media; paths in records are relative to it and may not leave it.
        val_records: data file of the validation samples, ``None`` for no validation.
        num_frames: frames of a video.
        face: how faces are cut out of frames, for encoders that read faces; ``None``: by the boxes of the records.
        batch_size: samples of an optimizer step, over all devices and micro-batches.
        max_tokens: of one packed row; a step takes as many rows as that needs.
        tasks: only records of these tasks, ``None`` for all; as a mapping, with how often each is used in an epoch (as
            the weight of a file). A record that names no task is always used, once.
        views: ways of looking at a record, which is used once for each that leaves something of it: ``video_audio``,
            ``video``, ``audio``.
        on_bad_sample: ``raise``, ``skip`` or ``quarantine``.
        quarantine_file: where ``quarantine`` keeps its list.
        missing: ``absent`` or ``fill``, see ``Samples``.
        max_length: of one sample in tokens, ``None`` for what a row holds.
        markers: wrap slots in plain-text markers.
        separator: between the slots and the words of a turn.
        supervise_newline: also supervise the newline behind an answer.
        val_limit: use only so many validation records, ``None`` for all.
        num_workers: processes that decode.
        timeout: seconds for reading one file.
        seed: of order and mixture.
        make: called before the first use, with nothing; makes a corpus that is made and not given.
        features: folder in which the features of frozen encoders are kept, for all runs; ``None`` computes them anew.

    Raises:
        ValueError: a data file or the mixture does not hold.
    """

    def __init__(
        self,
        records: Source | Sequence[Source],
        root: str,
        *,
        num_frames: int,
        batch_size: int,
        max_tokens: int,
        val_records: str | None = None,
        face: FaceInput | None = None,
        tasks: Sequence[str] | Mapping[str, int | float] | None = None,
        views: Sequence[str] = ("video_audio",),
        on_bad_sample: Policy = "raise",
        quarantine_file: str | None = None,
        missing: Literal["absent", "fill"] = "absent",
        max_length: int | None = None,
        markers: bool = True,
        separator: str = "\n",
        supervise_newline: bool = False,
        val_limit: int | None = None,
        num_workers: int = 1,
        timeout: float = 60.0,
        seed: int = 42,
        make: Callable[[], object] | None = None,
        features: str | None = None,
    ) -> None:
        super().__init__()
        sources = [records] if isinstance(records, str | Mapping) else list(records)
        self.sources = [source_of(source) for source in sources]
        self.root, self.val_records, self.val_limit = Path(root), val_records, val_limit
        self.batch_size, self.max_tokens, self.seed = batch_size, max_tokens, seed
        self.tasks, self.views = tasks, list(views)
        if isinstance(tasks, Mapping) and (wrong := {task: w for task, w in tasks.items() if not float(w) >= 0}):
            raise ValueError(f"data.tasks: a weight is 0 or more, got {wrong}.")
        if foreign := sorted(set(self.views) - set(MODALS)):
            raise ValueError(f"data.views holds {foreign}; choose from {sorted(MODALS)}.")
        self.options: dict[str, Any] = {
            "num_frames": num_frames,
            "face": face,
            "missing": missing,
            "policy": on_bad_sample,
            "quarantine_file": Path(quarantine_file) if quarantine_file else None,
            "timeout": timeout,
        }
        if on_bad_sample == "quarantine" and quarantine_file is None:
            raise ValueError("data.on_bad_sample=quarantine needs data.quarantine_file, where the list is kept.")
        self.chat_options: dict[str, Any] = {
            "markers": markers,
            "separator": separator,
            "supervise_newline": supervise_newline,
        }
        self.max_length = max_tokens if max_length is None else max_length
        self.num_workers, self.make, self.features = num_workers, make, features
        self._connected: tuple[Transforms, Layouts, Chat] | None = None
        self._cache: dict[Any, Samples] = {}
        self._rows: dict[tuple[int, int], int] = {}
        self._shares: list[tuple[list[int], float]] = []
        self._frozen: Frozen = {}
        self._features: FeatureCache | None = None

    def connect(
        self, transforms: Transforms, layouts: Layouts, tokenizer: Any, chat: Mapping[str, Any] | None = None,
        frozen: Frozen | None = None,
    ) -> None:  # fmt: skip
        """What only the model knows: how signals are made, how long they become, how text is put, what is frozen."""
        self._frozen, self._features = dict(frozen or {}), None
        built = Chat(tokenizer, **self.chat_options | dict(chat or {}), max_length=self.max_length)
        self._connected = (transforms, layouts, built)
        if self.make is not None:
            self.make()

    def setup(self, stage: str | None = None) -> None:
        """Before training and validation: frozen encoders see every planned sample once, each rank a share."""
        if self.features and self._features is None:
            for samples in (self.train_samples, self.val_samples):
                self.keep_features(samples)

    def keep_features(self, samples: Samples, indices: Sequence[int] | None = None) -> None:
        """Compute what frozen encoders make of samples and the store lacks; from then on samples read the store.

        Without ``indices`` of this process' own, each rank takes a share.
        """
        if self.features and self._frozen:
            trainer = getattr(self, "trainer", None)
            self._features = self._features or FeatureCache.of(Path(self.features), self._frozen, trainer)
            self._features.keep(samples, self._loader, (1, 0) if indices else self._place(), indices)

    @property
    def train_samples(self) -> Samples:
        """All training samples, planned."""
        if "train" not in self._cache:
            parts = [
                self._samples(self._records(Path(source["path"]), self.tasks), views=self.views)
                for source in self.sources
            ]
            self._shares, start = [], 0
            for source, part in zip(self.sources, parts, strict=True):
                by_task: dict[str | None, list[int]] = {}
                for index, planned in enumerate(part.planned, start):
                    by_task.setdefault(planned.record.task, []).append(index)
                start += len(part)
                self._shares += [(some, source["weight"] * self._weight(task)) for task, some in by_task.items()]
            samples = self._cache["train"] = parts[0].joined(parts[1:])
            seen = sum(planned.amounts["frames"] > 0 for planned in samples.planned)
            if seen and samples.without_boxes == seen:
                raise ValueError(
                    f"the model reads faces, but none of the {seen} samples says where they are (`faces` of a record): "
                    "choose face@data.face=whole, or a detector (yunet, mediapipe)."
                )
            if not self.order(0):
                raise ValueError(
                    f"no sample is left of {[str(s['path']) for s in self.sources]} with tasks {self.tasks} and views "
                    f"{self.views}; {len(self._cache['train'].skipped)} were skipped."
                )
        return self._cache["train"]

    def order(self, epoch: int) -> list[int]:
        """Indices of an epoch's samples: every source and task by its weight, in shuffled order."""
        _ = self.train_samples
        chosen: list[int] = []
        for number, (indices, weight) in enumerate(self._shares):
            whole, part = int(weight), round((weight - int(weight)) * len(indices))
            some = shuffled(len(indices), self.seed + 1 + number, epoch)[:part]
            chosen += [*(indices * whole), *(indices[place] for place in some)]
        return [chosen[place] for place in shuffled(len(chosen), self.seed, epoch)]

    def _weight(self, task: str | None) -> float:
        return float(self.tasks[task]) if isinstance(self.tasks, Mapping) and task is not None else 1.0

    def rows_per_step(self, world: int, epochs: int = 3) -> int:
        """Packed rows that each rank takes for one optimizer step: the trainer's gradient accumulation.

        Args:
            world: ranks.
            epochs: that will be trained; each mixes other samples in its steps, and all have to fit.
        """
        lengths = self.train_samples.lengths
        for epoch in range(max(1, epochs)):
            if (world, epoch) not in self._rows:
                order = self.order(epoch)
                self._rows[world, epoch] = rows_per_step(lengths, order, self.batch_size, self.max_tokens, world)
        return max(rows for (ranks, _), rows in self._rows.items() if ranks == world)

    @property
    def fingerprint(self) -> str:
        """A hash of the first epoch's samples in their order: runs with the same one saw the same."""
        ids = [self.train_samples.planned[index].record.id for index in self.order(0)]
        return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.order(0)) // self.batch_size)

    def planned(self, steps: int) -> int:
        """Samples that so many optimizer steps mean to train on."""
        size = len(self.order(0))
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * size + min(size, rest * self.batch_size)

    def train_dataloader(self) -> Loader:
        samples = self.train_samples
        world, rank = self._place()
        rows = self.rows_per_step(world)
        trainer = getattr(self, "trainer", None)
        if trainer is not None and (epochs := self._epochs(trainer)) and self.rows_per_step(world, epochs) > rows:
            raise ValueError(
                f"{rows} rows a step hold the first 3 epochs, but the {epochs} of this run need "
                f"{self.rows_per_step(world, epochs)}: raise stage.max_tokens or lower stage.batch_size."
            )
        options = {
            "batch_size": self.batch_size, "rows": rows, "world": world, "rank": rank, "max_tokens": self.max_tokens
        }  # fmt: skip

        def plan(epoch: int) -> list[Row]:
            return plan_epoch(samples.lengths, samples.targets, self.order(epoch), **options)

        return self._loader(samples, plan)

    @property
    def val_samples(self) -> Samples:
        """All validation samples, planned."""
        if "val" not in self._cache:
            found = self._records(Path(self.val_records), self.tasks) if self.val_records else iter(())
            self._cache["val"] = self._samples(islice(found, self.val_limit), views=self.views)
        return self._cache["val"]

    def val_dataloader(self) -> Loader | list[Any]:
        if self.val_records is None:
            return []
        samples = self.val_samples
        world, rank = self._place()
        order = list(range(len(samples)))
        rows = rows_per_step(samples.lengths, order, self.batch_size, self.max_tokens, world)
        planned = plan_epoch(
            samples.lengths, samples.targets, order, batch_size=self.batch_size, rows=rows, world=world, rank=rank
        )
        return self._loader(samples, lambda epoch: planned)

    def prompts(
        self, tasks: Sequence[str], modal: str, *, needs: Sequence[str] = (), limit: int | None = None, rank: int = 0,
        world: int = 1, batch: int = 16,
    ) -> Iterator[Batch]:  # fmt: skip
        """Validation questions seen through one modal, without their answers (these are in ``meta``).

        Args:
            tasks: of the records.
            modal: one of ``MODALS``.
            needs: only records whose text names all these slots, so that modals are compared on the same questions.
            limit: at most so many.
            rank: whose share.
            world: of how many.
            batch: questions in a batch.
        """
        if self.val_records is None:
            return
        key = (tuple(tasks), modal, tuple(needs), limit)
        if key not in self._cache:
            records = [
                record
                for record in self._records(Path(self.val_records), tasks)
                if isinstance(record, Record) and record.task in tasks and not set(needs) - set(record.slots)
            ]
            seen = [record for record in records if record.seen_as(modal) is not None]
            self._cache[key] = self._samples(seen[:limit], views=[modal], needs=needs, prompts=True)
        samples = self._cache[key]
        mine = range(rank, len(samples), world)
        self.keep_features(samples, mine)
        for start in range(0, len(mine), batch):
            yield samples[Row(tuple(mine[start : start + batch]), 0)]

    def question(self, record: Record) -> Samples:
        """One question about one file.

        Raises:
            BadSample: it cannot be asked.
        """
        return self._samples([record], prompts=True, policy="raise")

    def questions(self, records: Sequence[Record], views: Sequence[str] = ()) -> Samples:
        """Prompts about files; those that cannot be asked are left out and listed in ``skipped``."""
        samples = self._samples(records, views=views, prompts=True, policy="skip")
        self.keep_features(samples)
        return samples

    def _records(self, path: Path, tasks: Iterable[str] | None) -> Iterator[Record | tuple[str, BadSample]]:
        for record in read_records(path, self.root):
            if not isinstance(record, Record) or tasks is None or record.task is None or record.task in tasks:
                yield record

    def _samples(self, records: Iterable[Record | tuple[str, BadSample]], **options: Any) -> Samples:
        if self._connected is None:
            raise RuntimeError("OmniData.connect was not called: only the model knows how long its streams are.")
        transforms, layouts, chat = self._connected
        return Samples(records, transforms, layouts, chat, **(self.options | options))

    def _loader(self, samples: Samples, plan: Callable[[int], list[Row]]) -> Loader:
        return Loader(
            samples,
            plan,
            num_workers=self.num_workers,
            timeout=self.options["timeout"],
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if self.num_workers else None,
        )

    def _epochs(self, trainer: Any) -> int:
        """Epochs that a trainer means to go, 0 where it does not say."""
        steps = -(-len(self.order(0)) // self.batch_size)
        by_steps = -(-trainer.max_steps // steps) if trainer.max_steps > 0 else 0
        by_epochs = trainer.max_epochs or 0
        return max(0, min(by_steps or by_epochs, by_epochs if by_epochs > 0 else by_steps))

    def _place(self) -> tuple[int, int]:
        trainer = getattr(self, "trainer", None)
        return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)


def sample_corpus(folder: str, seed: int, main: bool = True, patience: float = 900.0) -> None:
    """Make the built-in corpus where it is not there yet; every process but the main one waits for it."""
    from omnihuman.data.sample.write import is_complete, write

    if main and not is_complete(Path(folder), seed):
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # cells of a sweep may begin at once
            write(Path(folder), seed=seed)
    until = time.monotonic() + patience
    while not is_complete(Path(folder), seed):
        if time.monotonic() > until:
            raise ValueError(f"{folder}: the built-in corpus did not appear within {patience:.0f} s.")
        time.sleep(1.0)
