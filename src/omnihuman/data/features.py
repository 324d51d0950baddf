"""Features of frozen encoders on disk: what does not learn is computed once."""

import copy
import hashlib
import json
import logging
import os
import pickle
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from omnihuman.data import decode, face, media
from omnihuman.data.plan import Row
from omnihuman.data.record import Record
from omnihuman.types import Batch, Features, Signal

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the files; another one begins anew."""

UNSEEN = {"id", "kind", "messages", "slots", "task", "needs", "faces", "source", "meta", "hides"}
"""What a record says that changes nothing of what an encoder of media reads; faces are for encoders of faces."""

UNSEEN_BY = {"frames": {"sound", "sound_clip"}, "faces": {"sound", "sound_clip"}, "waveform": {"then", "rate"}}
"""More of it, by what the encoder reads."""

Frozen = Mapping[str, tuple[nn.Module, bool]]
"""Encoders of media by name, each with whether its levels are read."""

_T = TypeVar("_T")


class FeatureStore:
    """A folder of features, named by what decides them; several processes may use it at once.

    Everything in it can be made again: it is safe to delete.

    Args:
        folder: made where it is not there.

    >>> store = FeatureStore(Path("/nowhere"))
    >>> store.load("ab12") is None
    True
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self, file: Path) -> str:
        """SHA-256 of a file, or of all files of a folder; not read again while path, size and time stay the same."""
        parts = sorted(part for part in file.rglob("*") if part.is_file()) if file.is_dir() else [file]
        stats = [(str(part), stat.st_size, stat.st_mtime_ns) for part in parts for stat in [part.stat()]]
        noted = self._place(_hash(stats), "media")
        if noted.is_file() and len(said := noted.read_text()) == 64:
            return said
        found = hashlib.sha256()
        for part in parts:
            with part.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
        self._write(noted, lambda partial: partial.write_text(found.hexdigest()))
        return found.hexdigest()

    def has(self, key: str) -> bool:
        """Whether features are there and whole; what is broken is removed."""
        return self._opened(key, lambda entry: True) is not None

    def load(self, key: str) -> tuple[Features, list[float]] | None:
        """Features of one sample and the seconds of its frames; ``None`` where they are not there or broken."""
        return self._opened(key, _read)

    def save(self, key: str, features: Features, times: Sequence[float]) -> None:
        """Keep the features ``[1 T N D]`` of one sample, with the seconds of its frames."""
        parts = [features, *features.levels]
        tensors = {f"tokens.{n}": part.tokens.contiguous() for n, part in enumerate(parts)}
        tensors |= {f"mask.{n}": part.mask.contiguous() for n, part in enumerate(parts)}
        said = {"grids": json.dumps([part.grid for part in parts]), "times": json.dumps(list(times))}
        self._write(self._place(key), lambda partial: save_file(tensors, partial, said))

    def _place(self, key: str, *folders: str) -> Path:
        return self.folder.joinpath(*folders, key[:2], key)

    def _opened(self, key: str, use: Callable[[Any], _T]) -> _T | None:
        place = self._place(key)
        try:
            with safe_open(place, "pt") as entry:  # checks the length that its header promises
                return use(entry)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("%s is broken (%s) and is made again", place, error)
            place.unlink(missing_ok=True)
            return None

    def _write(self, place: Path, write: Callable[[Path], object]) -> None:
        """Under another name first, so that nobody reads half of it."""
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}.partial")
        try:
            write(partial)
            os.replace(partial, place)
        finally:
            partial.unlink(missing_ok=True)


def _read(entry: Any) -> tuple[Features, list[float]]:
    said = entry.metadata()
    grids = [None if grid is None else (grid[0], grid[1]) for grid in json.loads(said["grids"])]
    whole, *levels = (
        Features(entry.get_tensor(f"tokens.{n}"), entry.get_tensor(f"mask.{n}"), grid) for n, grid in enumerate(grids)
    )
    return replace(whole, levels=tuple(levels)), json.loads(said["times"])


@dataclass(frozen=True)
class Kept:
    """Where the features of planned samples are.

    Attributes:
        store: that holds them.
        keys: for every sample, by encoder name; without those of what the sample lacks.
        blanks: of each encoder one moment ``[1 1 N D]`` that is not real.
    """

    store: FeatureStore
    keys: Sequence[Mapping[str, str]]
    blanks: Mapping[str, Features]

    def load(self, index: int) -> tuple[dict[str, Features], list[float]]:
        """What is there of a sample, and the seconds of its frames."""
        found = {name: kept for name, key in self.keys[index].items() if (kept := self.store.load(key))}
        times = max((times for _, times in found.values()), default=[])
        return {name: features for name, (features, _) in found.items()}, times


class FeatureCache:
    """Computes features of planned samples that a store lacks, and tells the samples where they are.

    Every clip goes through an encoder alone, so that what is kept does not depend on its neighbours.

    Args:
        store: where features are kept.
        frozen: the encoders.
        device: where they run.
        context: in which the model runs as well: autocast.
        precision: its name.
    """

    def __init__(
        self,
        store: FeatureStore,
        frozen: Frozen,
        *,
        device: torch.device | None = None,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        precision: str = "32-true",
    ) -> None:
        self.store, self.frozen, self.context = store, dict(frozen), context
        first = next((parameter for encoder, _ in frozen.values() for parameter in encoder.parameters()), None)
        self.device = device or (torch.device("cpu") if first is None else first.device)
        self.how = [FORMAT, precision, self.device.type, torch.get_float32_matmul_precision()]
        self._identities: dict[str, str] = {}

    @classmethod
    def of(cls, folder: Path, frozen: Frozen, trainer: Any = None) -> "FeatureCache":
        """Where and how precisely a trainer, if there is one, runs its model."""
        if trainer is None:
            return cls(FeatureStore(folder), frozen)
        plugin, device = trainer.strategy.precision_plugin, trainer.strategy.root_device
        # as the trainer will, but that comes later
        moved = {
            name: (plugin.convert_module(encoder.to(device)), levels) for name, (encoder, levels) in frozen.items()
        }
        context, precision = plugin.forward_context, str(trainer.precision)
        return cls(FeatureStore(folder), moved, device=device, context=context, precision=precision)

    def keep(
        self,
        samples: Any,
        loader: Callable[[Any, Callable[[int], list[Row]]], Iterable[Batch]],
        place: tuple[int, int] = (1, 0),
        indices: Sequence[int] | None = None,
    ) -> None:
        """Compute what the store lacks; a sample that cannot be decoded is left to fail when it is used.

        Args:
            samples: planned ``Samples``; their ``kept`` is set.
            loader: samples and plan -> batches.
            place: ranks that share the work, and which of them this is.
            indices: only of these samples.
        """
        world, rank = place
        if samples.kept is None:
            samples.kept = self._keyed(samples, first=rank * len(samples) // world)
        keys = samples.kept.keys
        todo, claimed = [], set[str]()
        # first what needs most of its file, which is then decoded once
        for index in sorted(range(len(keys)) if indices is None else indices, key=lambda index: -len(keys[index])):
            if new := set(keys[index].values()) - claimed:
                claimed |= new
                todo.append((index, new))
        rows = [Row((index,), 0) for index, new in todo[rank::world] if not all(map(self.store.has, new))]
        if rows:
            made, failed = self._fill(samples, loader, rows)
            left = f"; {failed} clips cannot be decoded" if failed else ""
            log.info("features: %d of %d are new in %s%s", made, len(claimed), self.store.folder, left)

    def _fill(self, samples: Any, loader: Callable[..., Iterable[Batch]], rows: list[Row]) -> tuple[int, int]:
        """How many features were made, and how many samples cannot be decoded."""
        keys, done, failed = samples.kept.keys, set[str](), 0
        lenient = copy.copy(samples)
        lenient.__dict__.pop("blanks", None)
        lenient.policy = "skip"
        lenient.transforms = {name: made for name, made in samples.transforms.items() if name in self.frozen}
        batches = loader(lenient, lambda epoch: rows)
        for row, batch in zip(rows, told(batches, len(rows), "clips encoded"), strict=True):
            failed += len(batch.skipped)
            for name, signal in batch.signals.items():
                key = keys[row.samples[0]].get(name)
                if batch.meta and key is not None and key not in done:
                    self.store.save(key, self._run(name, signal), batch.meta[0]["times"])
                    done.add(key)
        return len(done), failed

    def _keyed(self, samples: Any, first: int) -> Kept:
        """The keys of all samples; ranks that begin with another file find what the others have hashed."""
        files = list(dict.fromkeys(file for planned in samples.planned for file in planned.record.files))
        first = files.index(samples.planned[first].record.file) if files else 0
        turned = files[first:] + files[:first]
        with ThreadPoolExecutor(8) as pool:
            made = told(pool.map(self._content, turned), len(turned), "media files read for their hash")
            contents = dict(zip(turned, made, strict=True))
        looks = self._look(samples.face)
        encoders = [
            (name, reads, self._identity(name, transform))
            for name, (reads, transform) in samples.transforms.items()
            if name in self.frozen
        ]
        keys = []
        for planned in samples.planned:
            record, keyed = planned.record, dict[str, str]()
            readable = all(contents[file] for file in record.files)
            for name, reads, identity in encoders:
                amount = planned.amounts["waveform" if reads == "waveform" else "frames"]
                if amount and readable and reads not in record.hides:
                    faces = [record.faces, looks] if reads == "faces" else None
                    keyed[name] = _hash([identity, reads, amount, faces, _seen(record, reads, contents)])
            keys.append(keyed)
        nothing = torch.zeros(1, 1, dtype=torch.bool)
        blanks = {name: self._run(name, Signal(samples.blanks[name][None], nothing)) for name, _, _ in encoders}
        return Kept(self.store, keys, blanks)

    @torch.no_grad()
    def _run(self, name: str, signal: Signal) -> Features:
        encoder, levels = self.frozen[name]
        with self.context():
            made = encoder(Signal(signal.values.to(self.device), signal.mask.to(self.device), signal.has_gaps))
        parts = [Features(part.tokens.cpu(), part.mask.cpu(), part.grid) for part in (made, *made.levels)]
        return replace(parts[0], levels=tuple(parts[1:]) if levels else ())

    def _identity(self, name: str, transform: Any) -> str:
        """Hash of everything that decides what an encoder makes of a medium, code included."""
        if name not in self._identities:
            encoder, levels = self.frozen[name]
            of = {decode.__name__, face.__name__, media.__name__, transform.__module__}
            modules = [sys.modules[name] for name in of | {type(part).__module__ for part in encoder.modules()}]
            code = sorted({source_hash(file) for module in modules if (file := getattr(module, "__file__", None))})
            said = [*self.how, levels, pickle.dumps(transform, 4).hex(), code, weights_hash(encoder)]
            self._identities[name] = _hash(said)
        return self._identities[name]

    def _content(self, file: Path) -> str | None:
        try:
            return self.store.content(file)
        except OSError:  # gone since it was planned, or not to be read: its sample says so when it is used
            return None

    def _look(self, looks: Any) -> list[Any]:
        """How faces are found and cut out."""
        model = getattr(getattr(looks, "detector", None), "model", None)
        return [pickle.dumps(looks, 4).hex(), self.store.content(Path(model)) if model else None]


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of what a network is: its classes, their options, its parameters and buffers.

    >>> weights_hash(nn.Linear(2, 2)) == weights_hash(nn.Linear(2, 2))
    False
    """
    found = hashlib.sha256()
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, str | int | float | tuple)}
        plain.pop("training", None)
        found.update(_hash([name, type(part).__module__, type(part).__qualname__, plain]).encode())
    tensors: list[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@lru_cache
def source_hash(file: str) -> str:
    """SHA-256 of a file of code."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _seen(record: Record, reads: str, contents: Mapping[Path, str | None]) -> dict[str, Any]:
    """What a record says of a medium, files by what is in them."""
    said = {each.name: getattr(record, each.name) for each in fields(record)}
    if reads == "waveform":
        start, end = record.heard
        said |= {"file": record.sound or record.file, "sound": None, "start": start, "end": end, "sound_clip": None}
    kept = {key: value for key, value in said.items() if key not in UNSEEN | UNSEEN_BY[reads]}
    return {key: contents[value] if isinstance(value, Path) else value for key, value in kept.items()}


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()


def told(items: Iterable[_T], total: int, what: str, every: float = 10.0) -> Iterator[_T]:
    """The items, with a line in the log now and then where they take long."""
    last = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - last > every:
            last = time.monotonic()
            log.info("%d of %d %s", number, total, what)
        yield item
