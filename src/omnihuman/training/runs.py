"""A run is a folder whose name is a function of names, and a hash of what decides its result."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import prune

log = logging.getLogger(__name__)

SHARED = (
    "size",
    "seed",
    "trainer",
    "frames",
    "data",
    "model",
    "encoder",
    "projector",
    "fusion",
    "llm",
    "random_weights",
    "runs",
    "answers",
    "validate_first",
)
"""Config groups and keys whose overrides hold for the parents of a run as well as for the run itself."""

IRRELEVANT = ("num_workers", "quarantine_file", "timeout", "val_limit", "features")
"""Data options that change how fast a run is, not what it learns."""

FILES = ("records", "val_records", "root", "make", "_target_")
"""Data options that say which files: each stage may have its own, so a child does not ask its parents for these."""

DECISIVE = ("stage", "optimizer", "scheduler", "trainable", "init_from", "seed", "random_weights")
TRAINER = ("max_steps", "max_epochs", "precision", "limit_train_batches", "gradient_clip_val")


@dataclass(frozen=True)
class Run:
    """Where a run lives and what it is.

    Attributes:
        folder: ``runs/<size>/<experiment>[/<overrides>]``.
        digest: hash of what decides the result, parents included.
        recipe: the same without the names of the data files: what a child asks of a parent.
    """

    folder: Path
    digest: str
    recipe: str = ""

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def loss(self) -> float | None:
        """The best validation loss of a finished run that was validated."""
        file = self.folder / "ledger.json"
        found = json.loads(file.read_text())["best"].get("val/loss") if file.is_file() else None
        return None if found is None else float(found)

    def recorded(self, line: int = 0) -> str | None:
        """The digest (or, in line 1, the recipe) of what lies in the folder, ``None`` where nothing does."""
        file = self.folder / "digest"
        return file.read_text().splitlines()[line] if file.is_file() else None

    def finished(self) -> bool:
        """Whether this very run has been trained to its end."""
        return self.recorded() == self.digest and self.weights.is_file()

    def can_be_parent(self) -> bool:
        """Whether a run of this recipe has been trained to its end, on whatever data files."""
        return self.recorded(1) == self.recipe and self.weights.is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one main process at a time: cells of a sweep that need the same parent at once train it once."""
        if not is_main_process():
            yield
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            yield

    def checkpoint(self) -> Path | None:
        """The newest checkpoint of this very run, if it was interrupted."""
        if self.recorded() != self.digest or self.weights.is_file():
            return None
        found = sorted(self.checkpoints.glob("step=*"), key=lambda path: int(path.stem.split("=")[1]))
        return found[-1] if found else None

    def open(self, config: DictConfig, overwrite: bool = False) -> None:
        """Make the folder this run's own; what another config left there moves aside, it is never lost."""
        if (self.recorded() not in (None, self.digest)) or (overwrite and self.recorded()):
            number = next(n for n in range(1, 10**6) if not self.folder.with_name(f"{self.folder.name}.{n}").exists())
            aside = self.folder.with_name(f"{self.folder.name}.{number}")
            aside.mkdir()
            for path in [path for path in self.folder.iterdir() if not _is_variant(path)]:
                path.rename(aside / path.name)
            log.warning("%s held another run (other config, or overwrite=true): moved to %s", self.folder, aside)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "digest").write_text(f"{self.digest}\n{self.recipe}\n")
        self.checkpoints.mkdir(exist_ok=True)
        OmegaConf.save(config, self.folder / "config.yaml")


def _is_variant(path: Path) -> bool:
    """Whether something in a run's folder belongs to a cell of a sweep, which may be training there right now."""
    return path.suffix == ".lock" or (path / "digest").is_file()


def run_of(config: DictConfig, parents: Sequence[Run] = ()) -> Run:
    """The run that a composed config means, given the runs it starts from."""
    folder = Path(config.runs) / config.size / config.name
    if config.get("variant"):
        folder = folder / config.variant
    return Run(folder, _digest(config, parents), _digest(config, parents, without=FILES))


def run_folder(config: Mapping[str, Any] | DictConfig) -> Path:
    """The folder that ``run=`` names: a path to a model folder, or a name below ``<runs>/<size>``."""
    named = Path(str(config["run"])).expanduser()
    if (named / "config.yaml").is_file() or (named / "config.json").is_file():
        return named
    return Path(str(config["runs"]), str(config["size"]), str(config["run"]), str(config.get("variant") or ""))


def _digest(config: DictConfig, parents: Sequence[Run], without: Sequence[str] = ()) -> str:
    said: Any = OmegaConf.to_container(config, resolve=True)
    decisive = {key: said[key] for key in DECISIVE}
    decisive["model"] = prune(said["model"])
    decisive["data"] = {key: value for key, value in said["data"].items() if key not in (*IRRELEVANT, *without)}
    decisive["trainer"] = {key: value for key, value in said["trainer"].items() if key in TRAINER}
    decisive["parents"] = [parent.recipe for parent in parents]
    text = json.dumps(decisive, sort_keys=True, default=str)
    # what the package's own weights are decides a model, where the package lies does not
    package = str(files("omnihuman"))
    for folder in sorted({part for part in text.split('"') if part.startswith(package)}):
        text = text.replace(folder, _content(folder))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache
def _content(folder: str) -> str:
    """Hash of all files of a folder."""
    found = hashlib.sha256()
    for file in sorted(path for path in Path(folder).iterdir() if path.is_file()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def shared_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line that its parents need as well."""

    def key(override: str) -> str:
        return override.split("=", 1)[0].lstrip("+~").replace("/", ".").split("@")[0].split(".")[0]

    kept = [override for override in overrides if key(override) in SHARED]
    # a group choice (trainer=fsdp) is shared; a value below it (trainer.max_steps=2) is the child's own
    return [override for override in kept if not override.lstrip("+~").startswith("trainer.")]


def is_main_process() -> bool:
    """Whether this process is the one that writes, before Lightning knows."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")))) == 0
