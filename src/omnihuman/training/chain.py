"""Stages by name: a run's parents are trained first where they are missing, like make."""

import hashlib
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.build import compose_config
from omnihuman.training.runs import IRRELEVANT, TRAINER, Run, run_of, shared_overrides

log = logging.getLogger(__name__)

UNNAMED = (
    "size",
    "runs",
    "trainer",
    "answers",
    "validate_first",
    "validate_last",
    *(f"data.{key}" for key in IRRELEVANT),
)
"""Keys whose overrides do not show in the name of a sweep's folder: they say where and how fast, or what is asked."""

NAMED = {f"trainer.{key}" for key in TRAINER}
"""Keys below them that decide what is learned."""


@dataclass(frozen=True)
class Link:
    """A run with the runs it starts from.

    Attributes:
        run: the run.
        overrides: the command line that trains it.
        parents: in the order of ``init_from``.
    """

    run: Run
    overrides: tuple[str, ...]
    parents: tuple["Link", ...]

    @property
    def command(self) -> list[str]:
        """What a user would type to train it."""
        return ["python", "-m", "omnihuman.train", *self.overrides]


def link(config: DictConfig, overrides: Sequence[str]) -> Link:
    """The chain that ends in a composed config.

    Raises:
        ValueError: a run of ``init_from`` is no experiment.
    """
    shared = shared_overrides(overrides)
    gone = _taken_away(config, shared)
    parents = tuple(
        _given(Path(str(entry["folder"]))) if "folder" in entry
        else _parent(str(entry["run"]), shared, gone, bool(config.variant))
        for entry in config.init_from
    )  # fmt: skip
    return Link(run_of(config, [parent.run for parent in parents]), tuple(overrides), parents)


def _given(folder: Path) -> Link:
    """A model folder as a parent that nobody trains.

    Raises:
        ValueError: it is none.
    """
    run = Run(folder, "")
    if not run.weights.is_file() or run.recorded() is None:
        raise ValueError(
            f"init_from: {folder} is no model folder, it lacks weights.safetensors or digest: name a finished run, or "
            "what python -m omnihuman.convert made of a checkpoint."
        )
    return Link(Run(folder, run.recorded() or "", run.recorded(1) or ""), (), ())


def _taken_away(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """The parts that the command line takes away from an experiment, beside those that it does without anyway."""
    if not any(_sets_drop(override) for override in overrides):
        return []
    plain = compose_config([f"+experiment={config.name}", f"size={config.size}"])
    return [part for part in config.model.drop if part not in plain.model.drop]


def _sets_drop(override: str) -> bool:
    return override.startswith("model.drop=")


def _parent(name: str, shared: list[str], gone: list[str], sweeps: bool) -> Link:
    overrides = [override for override in shared if not _sets_drop(override)]
    if gone:
        dropped = list(compose_config([f"+experiment={name}", *overrides]).model.drop)
        if more := [part for part in gone if part not in dropped]:
            overrides.append(f"model.drop=[{','.join([*dropped, *more])}]")
    own = [f"+experiment={name}", *overrides]
    return in_sweep(name, overrides) if sweeps else link(compose_config(own), own)


def in_sweep(name: str, overrides: Sequence[str], variant: str | None = None) -> Link:
    """The chain of an experiment with overrides, in a folder of its own unless they change nothing.

    Cells of a sweep that differ must not train in one folder; those that agree shall.

    Args:
        name: of the experiment.
        overrides: without the experiment.
        variant: name of the folder; ``None`` makes one of the overrides.
    """
    own = [f"+experiment={name}", *overrides]
    found = link(compose_config(own), own)
    groups = [each for each in overrides if _is_unnamed(each.split("=")[0])]
    plain = [f"+experiment={name}", *groups]
    if own == plain or found.run.recipe == link(compose_config(plain), plain).run.recipe:
        return found
    if variant is None:
        own = [f"+experiment={name}", *_telling(name, overrides, groups, found.run.digest)]
        variant = ",".join(override for override in own[1:] if override not in groups).replace("/", ".")
        if len(variant) > 120:  # file systems end at 255
            variant = f"{variant[:100]}-{hashlib.sha256(variant.encode()).hexdigest()[:8]}"
    own.append(f"variant='{variant}'")
    return link(compose_config(own), own)


def _is_unnamed(key: str) -> bool:
    return key not in NAMED and (key in UNNAMED or key.split(".")[0] in UNNAMED)


def _telling(name: str, overrides: Sequence[str], groups: Sequence[str], digest: str) -> list[str]:
    """The overrides without those that this run does not depend on: another cell may have others of these."""
    kept, named = list(overrides), [each for each in overrides if each not in groups]
    for override in named if len(named) > 1 else ():
        own = [f"+experiment={name}", *(each for each in kept if each != override)]
        if link(compose_config(own), own).run.digest == digest:
            kept = own[1:]
    return kept


def train_missing(parents: Sequence[Link], allowed: bool = True) -> None:
    """Train every parent that is not finished, grandparents first.

    Raises:
        ValueError: a parent is missing and ``allowed`` is false.
        RuntimeError: a parent's training failed.
    """
    for parent in parents:
        if parent.run.can_be_parent():
            log.info("parent %s: reusing %s", parent.run.folder.name, parent.run.weights)
            continue
        command = " ".join(parent.command)
        if not allowed:
            raise ValueError(f"{parent.run.weights} is missing or of another config, and chain=false. Train: {command}")
        log.info("parent %s is missing or of another config; training it: %s", parent.run.folder.name, command)
        if (
            subprocess.run([sys.executable, *parent.command[1:]], check=False).returncode
            or not parent.run.can_be_parent()
        ):
            raise RuntimeError(f"training the parent failed: {command}")
