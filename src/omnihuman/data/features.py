"""A cache of the features of frozen encoders on disk."""

import copy
import hashlib
import logging
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from omnihuman.data import face, media, steps
from omnihuman.data.decode import audio, clock, frames, image, packets, riff, streams
from omnihuman.data.feature_store import FeatureStore, hash_value
from omnihuman.data.packing import Indices, MicroBatch, Step
from omnihuman.modality import BY_FIELD
from omnihuman.nn import tiles
from omnihuman.types import Batch, Batches, Features, Signal

log = logging.getLogger(__name__)

DECISIVE_MODULES = (audio, clock, face, frames, image, media, packets, riff, steps, streams, tiles)
"""Modules whose code decides what is decoded."""

FORMAT = 3
"""Version of the files; features of another version are computed again."""

Frozen = Mapping[str, tuple[nn.Module, bool]]
"""Frozen encoders by name, each with a flag: a part reads its levels."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class FeatureIndex:
    """The keys of the features of planned samples.

    Attributes:
        store: that holds the features.
        keys: of every sample, by encoder name; without encoders of modalities that the sample lacks.
        blanks: one masked time step ``[1 1 N D]`` of each encoder.
    """

    store: FeatureStore
    keys: Sequence[Mapping[str, str]]
    blanks: Mapping[str, Features]

    def load(self, index: int) -> tuple[dict[str, Features], list[float]]:
        """Return the stored features of a sample by encoder, and the seconds of its frames."""
        features: dict[str, Features] = {}
        times: list[float] = []
        for name, key in self.keys[index].items():
            entry = self.store.load(key)
            if entry is not None:
                features[name] = entry[0]
                times = max(times, entry[1])
        return features, times


class FeatureCache:
    """Computes the features of planned samples that a store lacks, and gives the samples an index of the store.

    Every clip goes through an encoder alone, so that its features do not depend on the other clips of a batch.

    Args:
        store: of the features.
        frozen: the encoders.
        device: on which they run.
        context: in which the model runs as well, such as autocast.
        precision: name of the trainer's precision.
        dtype: of the features; ``None`` for that of the encoders' outputs, which autocast leaves in float32.
    """

    def __init__(
        self,
        store: FeatureStore,
        frozen: Frozen,
        *,
        device: torch.device | None = None,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        precision: str = "32-true",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.store, self.frozen, self.context, self.dtype = store, dict(frozen), context, dtype
        self.device = device or _first_device(frozen)
        self.conditions = [FORMAT, precision, self.device.type, torch.get_float32_matmul_precision()]
        self._identities: dict[str, str] = {}

    @classmethod
    def open(cls, folder: str, max_gb: float | None, frozen: Frozen, trainer: Any = None) -> "FeatureCache":
        """Return a cache on the device and in the precision of a trainer, if there is one.

        Where the operations are in bfloat16, the features are, too: half the bytes of what autocast leaves in float32.

        Args:
            folder: of the features.
            max_gb: 10^9 bytes of them; ``None`` for no limit.
            frozen: the encoders.
            trainer: Lightning's.
        """
        store = FeatureStore(Path(folder), None if max_gb is None else max_gb * 1e9)
        if trainer is None:
            return cls(store, frozen)
        plugin, device = trainer.strategy.precision_plugin, trainer.strategy.root_device
        moved = {}
        for name, (encoder, reads_levels) in frozen.items():
            # The trainer converts the model as well, but only after the data module's setup.
            moved[name] = (plugin.convert_module(encoder.to(device)), reads_levels)
        dtype = getattr(plugin, "compute_dtype", None)
        options = {"context": plugin.forward_context, "precision": str(plugin.precision)}
        return cls(store, moved, device=device, dtype=dtype if dtype == torch.bfloat16 else None, **options)

    def fill(
        self,
        samples: Any,
        build_loader: Callable[[Any, Callable[[int], Sequence[Step]]], Iterable[Batches]],
        share: tuple[int, int] = (1, 0),
        indices: Sequence[int] | None = None,
    ) -> None:
        """Compute missing features. A sample that cannot be decoded fails later, when it is used.

        Args:
            samples: planned ``Samples``; their ``cached`` is set.
            build_loader: makes a loader from samples and a plan.
            share: number of ranks, and the rank of this process.
            indices: only these samples.
        """
        world, rank = share
        if samples.cached is None:
            samples.cached = self._build_index(samples, first=rank * len(samples) // world)
        keys = samples.cached.keys
        selected = range(len(keys)) if indices is None else indices
        tasks, claimed = [], set[str]()
        # Samples that need most of their file come first, so that a file is decoded once.
        for index in sorted(selected, key=lambda index: -len(keys[index])):
            new = set(keys[index].values()) - claimed
            if new:
                claimed |= new
                tasks.append((index, new))
        plan = list[MicroBatch]()
        for index, new in tasks[rank::world]:
            if not all([self.store.has(key) for key in new]):  # all of them count as used
                plan.append(MicroBatch((index,), 0))
        if plan:
            num_new, num_failed = self._compute(samples, build_loader, plan)
            failures = f"; {num_failed} clips cannot be decoded" if num_failed else ""
            log.info("features: %d of %d are new in %s%s", num_new, len(claimed), self.store.folder, failures)

    def _compute(
        self, samples: Any, build_loader: Callable[..., Iterable[Batches]], plan: list[MicroBatch]
    ) -> tuple[int, int]:
        """Return the number of new features, and of samples that cannot be decoded."""
        keys, saved, num_failed = samples.cached.keys, set[str](), 0
        lenient = copy.copy(samples)
        lenient.__dict__.pop("blanks", None)
        lenient.policy = "skip"
        lenient.transforms = {name: entry for name, entry in samples.transforms.items() if name in self.frozen}
        batches = build_loader(lenient, lambda epoch: [(micro_batch,) for micro_batch in plan])
        for micro_batch, (batch,) in zip(plan, with_progress(batches, len(plan), "clips encoded"), strict=True):
            num_failed += len(batch.skipped)
            if not self._save_batch(batch, keys[micro_batch.indices[0]], saved):
                log.warning(
                    "features: %s is full; clips that it lacks are encoded in every step. Raise data.features_gb.",
                    self.store.folder,
                )
                break
        return len(saved), num_failed

    def _save_batch(self, batch: Batch, keys: Mapping[str, str], saved: set[str]) -> bool:
        """Save the features of a sample, but for the ``saved`` ones; return false if one does not fit."""
        for name, signal in batch.signals.items():
            key = keys.get(name)
            if batch.meta and key is not None and key not in saved:
                if not self.store.save(key, self._encode(name, signal), batch.meta[0]["times"]):
                    return False
                saved.add(key)
        return True

    def _build_index(self, samples: Any, first: int) -> FeatureIndex:
        """Return the keys of all samples; each rank begins to hash at another file and finds the others' notes."""
        names = [name for name in samples.transforms if name in self.frozen]
        files = self._files_of(samples, names)
        begin = files.index(samples.planned[first].record.file) if files else 0
        contents = self._hash_contents(files[begin:] + files[:begin])
        keys = []
        for planned in samples.planned:
            keys.append(self._keys_of(samples, planned, names, contents))
        mask = torch.zeros(1, 1, dtype=torch.bool)
        blanks = {name: self._encode(name, Signal(samples.blanks[name][None], mask)) for name in names}
        return FeatureIndex(self.store, keys, blanks)

    def _files_of(self, samples: Any, names: Sequence[str]) -> list[Path]:
        files: dict[Path, None] = {}
        for planned in samples.planned:
            files.update(dict.fromkeys(planned.record.files))
            for name in names:
                reader = samples.readers[samples.transforms[name][0]]
                files.update(dict.fromkeys(reader.files(planned.record)))
        return list(files)

    def _hash_contents(self, files: Sequence[Path]) -> dict[Path, str | None]:
        def hash_content(file: Path) -> str | None:
            try:
                return self.store.hash_content(file)
            except OSError:  # unreadable since it was planned: decoding the sample reports it
                return None

        with ThreadPoolExecutor(8) as pool:
            hashes = with_progress(pool.map(hash_content, files), len(files), "media files hashed")
            return dict(zip(files, hashes, strict=True))

    def _keys_of(
        self, samples: Any, planned: Any, names: Sequence[str], contents: Mapping[Path, str | None]
    ) -> dict[str, str]:
        """Return the cache key of a sample for each encoder; none for what it lacks or cannot be read.

        Samples of several images are not cached: general data uses each once.
        """
        keys = dict[str, str]()
        if planned.record.more_images:
            return keys
        for name in names:
            field, transform = samples.transforms[name]
            reader, amount = samples.readers[field], planned.amounts[BY_FIELD[field].planned_from]
            is_readable = all(contents[file] for file in reader.files(planned.record))
            if amount and is_readable and field not in planned.record.hidden:
                decisive = {
                    key: contents[value] if isinstance(value, Path) else value
                    for key, value in reader.cache_key(planned.record).items()
                }
                identity = self._identify(name, transform, type(reader).__module__)
                keys[name] = hash_value([identity, field, amount, decisive])
        return keys

    @torch.no_grad()
    def _encode(self, name: str, signal: Signal) -> Features:
        encoder, reads_levels = self.frozen[name]
        with self.context():
            output = encoder(Signal(signal.values.to(self.device), signal.mask.to(self.device), signal.has_gaps))
        parts = [
            Features(part.tokens.to("cpu", self.dtype or part.tokens.dtype), part.mask.cpu(), part.grid)
            for part in (output, *output.levels)
        ]
        return replace(parts[0], levels=tuple(parts[1:]) if reads_levels else ())

    def _identify(self, name: str, transform: Any, reader_module: str) -> str:
        """Return a hash of everything that decides an encoder's output besides the medium, code included."""
        if name not in self._identities:
            encoder, reads_levels = self.frozen[name]
            module_names = {module.__name__ for module in DECISIVE_MODULES}
            module_names |= {transform.__module__, reader_module}
            module_names |= {type(part).__module__ for part in encoder.modules()}
            files = [getattr(sys.modules[module_name], "__file__", None) for module_name in module_names]
            code = sorted({hash_source(file) for file in files if file})
            parts = [*self.conditions, reads_levels, pickle.dumps(transform, 4).hex(), code, hash_weights(encoder)]
            self._identities[name] = hash_value(parts)
        return self._identities[name]


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 of a network: its classes, their options, its parameters and buffers.

    >>> hash_weights(nn.Linear(2, 2)) == hash_weights(nn.Linear(2, 2))
    False
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, str | int | float | tuple)}
        plain.pop("training", None)
        digest.update(hash_value([name, type(part).__module__, type(part).__qualname__, plain]).encode())
    tensors: list[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@lru_cache
def hash_source(file: str) -> str:
    """Return the SHA-256 of a source file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def with_progress(items: Iterable[_T], total: int, label: str, every: float = 10.0) -> Iterator[_T]:
    """Yield the items, and log progress every few seconds."""
    last = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - last > every:
            last = time.monotonic()
            log.info("%d of %d %s", number, total, label)
        yield item


def _first_device(frozen: Frozen) -> torch.device:
    for encoder, _ in frozen.values():
        for parameter in encoder.parameters():
            return parameter.device
    return torch.device("cpu")


def select_first(order: Sequence[int] | Indices, steps: float, batch_size: int) -> list[int] | None:
    """Return the samples of the first steps of an order, ``None`` for all of them and those of other orders.

    Args:
        order: of samples.
        steps: their number, an integer; below zero, or a share of all as Lightning's limits have it: all.
        batch_size: samples of a step.
    """
    if isinstance(steps, float) or steps < 0 or steps * batch_size >= len(order):
        return None
    return [int(index) for index in order[: steps * batch_size]]
