"""A run: a folder named after its config, and a hash of everything that decides its result."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import prune
from omnihuman.gate import resolve_foreign
from omnihuman.overrides import parse_overrides
from omnihuman.training.checkpoint import find_newest, list_checkpoints
from omnihuman.training.launcher import is_main_process
from omnihuman.training.shards import has_weights

log = logging.getLogger(__name__)

SHARED_ROOTS = (
    "size",
    "base",
    "seed",
    "trainer",
    "logger",
    "frames",
    "data",
    "model",
    "encoder",
    "projector",
    "fusion",
    "llm",
    "random_weights",
    "runs",
    "chain",
    "validation",
    "validate_first",
    "on_bad_loss",
    "spike_factor",
)
"""Config groups and keys whose overrides apply to the parents of a run as well as to the run itself."""

PLACE_KEYS = tuple(
    f"trainer.{key}"
    for key in (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "precision",
        "checkpoint_keep",
        "checkpoint_async",
        "reduce_each",
        "replicate",
    )
)
"""Values of the trainer that apply to parents as well: where and how they run, not for how long."""

STAGE_DATA_KEYS = ("tasks", "views")
"""Data options of one stage: its parents have their own."""

SPEED_DATA_KEYS = (
    "num_workers",
    "prefetch_mb",
    "quarantine_folder",
    "max_skipped",
    "timeout",
    "val_limit",
    "features",
    "index_folder",
    "index_days",
)
"""Data options that change the speed of a run and not its result."""

FILE_DATA_KEYS = ("path", "index", "records", "val_records", "root", "source", "_target_")
"""Data options that name sources: each stage may have its own, so a child does not compare them."""

FINISHED = "finished"
"""File that a complete model folder contains; it is written last."""

TIME_FILE = "time.json"
"""File with the seconds of every process that has trained the run, by their use."""

DIGEST = "digest"
"""File with the digests of a run; a folder without it is no run."""

DECISIVE_KEYS = (
    "recipe",
    "objective",
    "callback",
    "optimizer",
    "scheduler",
    "trainable",
    "init_from",
    "seed",
    "random_weights",
)
SELECTION_KEYS = ("select", "monitor", "patience", "val_every", "validation")
"""Keys that decide the result of a run whose validations select its weights or end it, ..."""
SELECTION_TRAINER_KEYS = ("check_val_every_n_epoch", "limit_val_batches")
"""... and values of the trainer that do so."""

OBSERVERS = "omnihuman.evaluation."
"""Package whose callbacks measure the model and do not change it: they decide a result only by what is selected."""

DECISIVE_TRAINER_KEYS = ("max_steps", "max_epochs", "precision", "limit_train_batches", "gradient_clip_val")


@dataclass(frozen=True)
class Run:
    """The folder and the identity of a run.

    Attributes:
        folder: ``runs/<size>/<experiment>[/<variant>]``.
        digest: hash of everything that decides the result, parents included.
        chain_digest: the same hash without the names of the data files: a child compares it with its parent's.
    """

    folder: Path
    digest: str
    chain_digest: str = ""

    @property
    def weights(self) -> Path:
        """File of the weights; in its place there may be shards with an index, see ``omnihuman.training.shards``."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def loss(self) -> float | None:
        """The best validation loss, ``None`` for a run that is not finished or was never validated."""
        if not self.is_complete():
            return None
        file = self.folder / "ledger.json"
        loss = json.loads(file.read_text())["best"].get("val/loss")
        return None if loss is None else float(loss)

    def read_digest(self) -> str | None:
        """Return the digest that is stored in the folder, ``None`` without one."""
        return self._read_identity(line=0)

    def read_chain_digest(self) -> str | None:
        """Return the chain digest that is stored in the folder, ``None`` without one."""
        return self._read_identity(line=1)

    def _read_identity(self, line: int) -> str | None:
        file = self.folder / DIGEST
        return file.read_text().splitlines()[line] if file.is_file() else None

    def finish(self) -> None:
        """Mark the folder as complete, after everything else is written, and delete its checkpoints."""
        (self.folder / FINISHED).touch()
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def is_complete(self) -> bool:
        """Return true if everything of a run is in the folder, whatever its config."""
        return (self.folder / FINISHED).is_file() and has_weights(self.weights)

    def is_finished(self) -> bool:
        """Return true if the folder contains everything of exactly this run."""
        return self.read_digest() == self.digest and self.is_complete()

    def can_be_parent(self) -> bool:
        """Return true if the folder contains everything of a run with this config, on any data files."""
        return self.read_chain_digest() == self.chain_digest and self.is_complete()

    def check_free(self, cure: str) -> None:
        """Check that the folder holds no other run, neither finished nor interrupted.

        Args:
            cure: how to get another folder, for the message.

        Raises:
            ValueError: it does.
        """
        is_used = self.is_complete() or bool(list_checkpoints(self.checkpoints))
        if is_used and self.read_digest() != self.digest:
            raise ValueError(
                f"{self.folder} holds another run, whose config differs in what the folder's name does not tell: "
                f"{cure}; overwrite=true trains it again (its files move aside)."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Admit one main process at a time: cells of a sweep with the same missing parent train it once.

        Raises:
            OSError: the folder cannot be written.
        """
        if not is_main_process():
            yield
            return
        lock = FileLock(f"{self.folder}.lock")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._acquire(lock)
        except OSError as error:
            raise OSError(f"{self.folder} cannot be written ({error}): runs=<folder> names another place.") from error
        with lock:
            yield

    def _acquire(self, lock: FileLock) -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.warning("%s: another process trains this run; waiting for its end", self.folder)
            lock.acquire()

    def find_checkpoint(self, check: Callable[[Path], str | None] | None = None) -> Path | None:
        """Return the newest complete checkpoint of this run, ``None`` if it was not interrupted.

        Args:
            check: see ``find_newest``.

        Raises:
            ValueError: it has checkpoints, but all of them are damaged.
        """
        if self.read_digest() != self.digest or self.is_complete():
            return None
        return find_newest(self.checkpoints, check, run=self.digest)

    def open(self, config: DictConfig) -> None:
        """Create the folder with the identity and the config of the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_identity()
        self.checkpoints.mkdir(exist_ok=True)
        OmegaConf.save(resolve_foreign(config), self.folder / "config.yaml")

    def write_identity(self) -> None:
        """Write the digests into the folder."""
        (self.folder / DIGEST).write_text(f"{self.digest}\n{self.chain_digest}\n")


def build_run(config: DictConfig, parents: Sequence[Run] = ()) -> Run:
    """Return the run of a composed config that starts from these parents."""
    folder = Path(config.runs) / config.size / config.name
    if config.get("variant"):
        folder = folder / config.variant
    plain: Any = OmegaConf.to_container(config, resolve=True)
    digest = _compute_digest(plain, parents, SPEED_DATA_KEYS)
    chain_digest = _compute_digest(plain, parents, (*SPEED_DATA_KEYS, *FILE_DATA_KEYS))
    return Run(folder, digest, chain_digest)


def _compute_digest(plain: Mapping[str, Any], parents: Sequence[Run], ignored_data_keys: Sequence[str]) -> str:
    decisive = {key: plain[key] for key in DECISIVE_KEYS}
    # a folder counts by its own digest, among the parents, and not by its path
    decisive["init_from"] = [entry | {"folder": ""} if "folder" in entry else entry for entry in plain["init_from"]]
    decisive["callback"] = {name: node for name, node in plain["callback"].items() if not _is_observer(node)}
    decisive["model"] = drop_null(prune(plain["model"]))
    data = {key: value for key, value in plain["data"].items() if key not in ignored_data_keys}
    decisive["data"] = drop_null(data)
    decisive["trainer"] = {key: value for key, value in plain["trainer"].items() if key in DECISIVE_TRAINER_KEYS}
    if plain["select"] == "best" or plain["patience"] is not None:
        decisive["selection"] = {key: plain[key] for key in SELECTION_KEYS}
        decisive["selection"] |= {key: plain["trainer"].get(key) for key in SELECTION_TRAINER_KEYS}
        decisive["selection"]["callback"] = plain["callback"]
        decisive["selection"]["val_limit"] = plain["data"].get("val_limit")
    decisive["parents"] = [parent.chain_digest for parent in parents]
    text = json.dumps(decisive, sort_keys=True, default=str)
    # The package's own weights decide a result by their content. The path of the package does not, and differs
    # between machines: each path is replaced by a hash of the files behind it.
    package = str(files("omnihuman"))
    folders = {part for part in text.split('"') if part.startswith(package)}
    for folder in sorted(folders):
        text = text.replace(folder, _hash_folder(folder))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def drop_null(tree: Any) -> Any:
    """Return a plain config without the keys that are null: an option that is off, and one that did not exist yet.

    >>> drop_null({"tiles": None, "model": {"lora": None, "names": ["a", None]}})
    {'model': {'names': ['a', None]}}
    """
    if isinstance(tree, dict):
        return {key: drop_null(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [drop_null(value) for value in tree]
    return tree


def _is_observer(node: Mapping[str, Any] | None) -> bool:
    return node is not None and str(node.get("_target_")).startswith(OBSERVERS)


@lru_cache
def _hash_folder(folder: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def select_shared(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a command line that apply to the parents of its run as well."""
    shared = []
    for override in parse_overrides(overrides):
        # a choice of the group (trainer=fsdp) applies to parents, and where and how fast they run
        is_length = override.name.startswith("trainer.") and not override.is_below(*PLACE_KEYS)
        is_of_stage = override.is_below(*(f"data.{key}" for key in STAGE_DATA_KEYS))
        if override.root in SHARED_ROOTS and not is_length and not is_of_stage:
            shared.append(str(override))
    return shared
