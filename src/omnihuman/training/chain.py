"""Stages by name: a run's parents are trained first where they are missing, like make."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from omnihuman.build import compose_config
from omnihuman.training.runs import Run, run_of, shared_overrides

log = logging.getLogger(__name__)


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
    parents = tuple(_parent(str(entry["run"]), shared, bool(config.variant)) for entry in config.init_from)
    return Link(run_of(config, [parent.run for parent in parents]), tuple(overrides), parents)


def _parent(name: str, shared: list[str], sweeps: bool) -> Link:
    own = [f"+experiment={name}", *shared]
    found = link(compose_config(own), own)
    groups = [override for override in shared if override.split("=")[0] in ("size", "runs", "trainer", "seed")]
    plain = [f"+experiment={name}", *groups]
    if not sweeps or own == plain or found.run.recipe == link(compose_config(plain), plain).run.recipe:
        return found
    # in a sweep, cells whose parents differ must not train them in one folder
    variant = ",".join(override for override in shared if override not in groups).replace("/", ".")
    own.append(f"variant='{variant}'")
    return link(compose_config(own), own)


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
