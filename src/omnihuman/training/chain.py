"""Chains of stages: the missing parents of a run are trained before it, like prerequisites in make."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from omnihuman.build import compose_config
from omnihuman.overrides import Override, parse_override, parse_overrides, quote, select_keys, without_keys
from omnihuman.stop import REQUEUE, Interrupted
from omnihuman.training.base import rebase
from omnihuman.training.naming import name_cell, name_overrides
from omnihuman.training.run_search import read_config
from omnihuman.training.runs import DECISIVE_TRAINER_KEYS, FINISHED, SPEED_DATA_KEYS, Run, build_run, select_shared
from omnihuman.training.stage_data import select_stage_data

log = logging.getLogger(__name__)

UNNAMED_KEYS = (
    "size",
    "runs",
    "trainer",
    "logger",
    "validation",
    "validate_first",
    "chain",
    *(f"data.{key}" for key in SPEED_DATA_KEYS),
)
"""Keys whose overrides are left out of a folder's name: they decide where and how fast a run is, not its result."""

STOPPED = {REQUEUE: signal.SIGTERM, 128 + signal.SIGINT: signal.SIGINT}
"""Exit code of a training that was saved -> signal."""

NAMED_KEYS = tuple(f"trainer.{key}" for key in DECISIVE_TRAINER_KEYS)
"""Keys below ``UNNAMED_KEYS`` that do decide the result."""


@dataclass(frozen=True)
class Chain:
    """A run with the runs that it starts from.

    Attributes:
        run: the run.
        overrides: the command line that trains it; empty for a model folder, which needs no training.
        parents: in the order of ``init_from``.
        config: of the run, with the parts of ``base``; empty for a model folder.
        stages: the experiments whose training the weights contain: its own and those of its parents.
    """

    run: Run
    overrides: tuple[str, ...]
    parents: tuple["Chain", ...]
    config: DictConfig = field(default_factory=OmegaConf.create, repr=False, compare=False)
    stages: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The command that trains it."""
        return ["python", "-m", "omnihuman.train", *self.overrides]


def resolve_chain(config: DictConfig, overrides: Sequence[str]) -> Chain:
    """Return the chain that ends in a composed config, whichever verb composed it.

    Raises:
        ValueError: an entry of ``init_from`` is neither an experiment nor a model folder, or ``base`` is no folder.
    """
    is_variant = bool(config.variant)
    if config.get("base") is not None:
        config = rebase(config, overrides)
    config = select_stage_data(config)
    shared = _select_overrides_of_parents(config, overrides)
    removed = _removed_parts(config, shared)
    parents = []
    for entry in config.init_from:
        if "folder" in entry:
            parents.append(_read_model_folder(Path(str(entry["folder"]))))
        else:
            parents.append(_resolve_parent(str(entry["run"]), shared, removed, is_variant))
    run = build_run(config, [parent.run for parent in parents])
    stages = dict.fromkeys([str(config.name)])
    for parent in parents:
        stages |= dict.fromkeys(parent.stages)
    config = config.copy()
    config.stages = list(stages)
    return Chain(run, tuple(overrides), tuple(parents), config, tuple(stages))


def list_stages(experiment: str) -> list[str]:
    """Return an experiment and those that its chain trains before it."""
    return list(_resolve_experiment(experiment, ()).stages)


def _select_overrides_of_parents(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that apply to the parents; ``parent_seed`` replaces the seed of the run."""
    shared = select_shared(overrides)
    if config.get("parent_seed") is None:
        return shared
    return [*without_keys(shared, "seed"), f"seed={config.parent_seed}"]


def _read_model_folder(folder: Path) -> Chain:
    """Return a model folder as a parent that needs no training.

    Raises:
        ValueError: the folder is no model folder.
    """
    run = Run(folder, "")
    digest = run.read_digest()
    if digest is None or not run.is_complete():
        raise ValueError(
            f"init_from: {folder} is no model folder: it must contain weights.safetensors, digest and {FINISHED}. Name "
            "the folder of a finished run, or convert a checkpoint with omnihuman convert."
        )
    run = Run(folder, digest, run.read_chain_digest() or "")
    return Chain(run, (), (), stages=tuple(read_config(folder).get("stages") or ()))


def _removed_parts(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the parts that the command line drops from the model, without those that the experiment drops anyway."""
    if not select_keys(overrides, "model.drop"):
        return []
    plain = compose_config([f"+experiment={config.name}", f"size={config.size}"])
    return [part for part in config.model.drop if part not in plain.model.drop]


def _resolve_parent(name: str, shared: Sequence[str], removed: Sequence[str], is_sweep: bool) -> Chain:
    """Return the chain of a parent: the shared overrides, and the parts that its child drops are dropped there too.

    Variants and cells resolve the same parents many times; what depends on files of the user is resolved anew.
    """
    arguments = (name, tuple(shared), tuple(removed), is_sweep)
    if select_keys(shared, "base", "data.path"):
        return _resolve_parent_once.__wrapped__(*arguments)
    return _resolve_parent_once(*arguments)


@lru_cache(maxsize=128)
def _resolve_parent_once(name: str, shared: tuple[str, ...], removed: tuple[str, ...], is_sweep: bool) -> Chain:
    overrides = without_keys(shared, "model.drop")
    if removed:
        dropped = list(compose_config([f"+experiment={name}", *overrides]).model.drop)
        extra = [part for part in removed if part not in dropped]
        if extra:
            overrides.append(f"model.drop=[{','.join([*dropped, *extra])}]")
    if is_sweep:
        return resolve_variant(name, overrides)
    return _resolve_experiment(name, overrides)


def _resolve_experiment(name: str, overrides: Sequence[str]) -> Chain:
    command_line = [f"+experiment={name}", *overrides]
    return resolve_chain(compose_config(command_line), command_line)


def resolve_variant(name: str, overrides: Sequence[str], variant: str | None = None) -> Chain:
    """Return the chain of an experiment with overrides, in a folder of its own unless they do not change the result.

    Cells of a sweep with different results must not share a folder; cells with the same result should.

    Args:
        name: of the experiment.
        overrides: without the experiment.
        variant: name of the folder; ``None`` derives one from the overrides.
    """
    chain = _resolve_experiment(name, overrides)
    unnamed = [str(override) for override in parse_overrides(overrides) if _is_unnamed(override)]
    if list(overrides) == unnamed:
        return chain
    plain = _resolve_run(name, unnamed)
    if plain is not None and plain.chain_digest == chain.run.chain_digest:
        return chain
    if variant is None:
        overrides = _select_relevant(name, overrides, unnamed, chain.run.digest)
        variant = name_overrides(parse_override(override) for override in overrides if override not in unnamed)
    return _resolve_experiment(name, [*overrides, f"variant={quote(str(variant))}"])


def _resolve_run(name: str, overrides: Sequence[str]) -> Run | None:
    """Return the run of an experiment with some of its overrides, ``None`` where it needs the others too."""
    try:
        return _resolve_experiment(name, overrides).run
    except (ValueError, HydraException, OmegaConfBaseException):
        return None


def open_cell(
    config: DictConfig, overrides: Sequence[str], params: Mapping[str, str] | None
) -> tuple[DictConfig, list[str]]:
    """Return the config and the overrides of a cell of a sweep, with the folder that is named after what was swept.

    Args:
        config: of the cell.
        overrides: of the cell.
        params: of the sweep: ``hydra.sweeper.params``.

    Raises:
        ValueError: the folder holds a run of another sweep.
    """
    variant = name_cell(overrides, params, config.variant)
    if variant is not None:
        overrides = [*without_keys(overrides, "variant"), f"variant={quote(variant)}"]
    config = config.copy()
    config.variant = variant
    if not config.overwrite:
        resolve_chain(config, overrides).run.check_free("variant=<name> gives this sweep folders of its own")
    return config, list(overrides)


def _is_unnamed(override: Override) -> bool:
    return override.is_below(*UNNAMED_KEYS) and not override.is_below(*NAMED_KEYS)


def _select_relevant(name: str, overrides: Sequence[str], unnamed: Sequence[str], digest: str) -> list[str]:
    """Return the overrides on which the digest of a run depends, and the unnamed ones."""
    # A parent gets all shared overrides of its child, and most of them change nothing in it: the fusion of a cell is
    # irrelevant to a stage that drops this fusion. No rule on keys can tell, since parts, interpolations and sizes
    # decide. So each override is left out once: if the composed chain still has the same digest, the override is
    # irrelevant and stays out of the folder's name. Cells that differ in irrelevant overrides alone then share the
    # parent's folder, and it is trained once. A single override is relevant: the caller has compared without it.
    relevant = list(overrides)
    candidates = [override for override in overrides if override not in unnamed]
    if len(candidates) == 1:
        return relevant
    for candidate in candidates:
        remaining = [override for override in relevant if override != candidate]
        run = _resolve_run(name, remaining)
        if run is not None and run.digest == digest:
            relevant = remaining
    return relevant


def train_missing(
    parents: Sequence[Chain], is_allowed: bool = True, train_here: Callable[[Sequence[str]], object] | None = None
) -> None:
    """Train every parent that is not finished, grandparents first.

    Args:
        parents: of a run.
        is_allowed: to train them.
        train_here: trains the run of a command line in this process, as one of several that a launcher has started;
            ``None``: a process of its own does.

    Raises:
        Interrupted: a signal has ended the training of a parent.
        ValueError: a parent is missing and ``is_allowed`` is false, or its training failed.
    """
    for parent in parents:
        name = parent.run.folder.name
        if parent.run.can_be_parent():
            log.info("parent %s: reusing %s", name, parent.run.weights)
            continue
        command = " ".join(parent.command)
        if not is_allowed:
            raise ValueError(f"{parent.run.weights} is missing or of another config, and chain=false. Train: {command}")
        log.info("parent %s is missing or of another config; training it: %s", name, command)
        code, last_line = 0, ""
        if train_here is not None:
            train_here(parent.overrides)
        else:
            code, last_line = _run_training(parent.command)
        if code in STOPPED:
            raise Interrupted(last_line, STOPPED[code])
        if code or not parent.run.can_be_parent():
            reason = last_line.removeprefix("error: ") or f"exit code {code}"
            raise ValueError(f"training the parent {name} failed: {reason}; its command: {command}")


def _run_training(command: Sequence[str]) -> tuple[int, str]:
    """Run a training; return its exit code and the last line that it wrote to stderr, which is passed on."""
    tail = b""
    with subprocess.Popen([sys.executable, *command[1:]], stderr=subprocess.PIPE) as process, _forward_signals(process):
        assert process.stderr is not None
        while chunk := os.read(process.stderr.fileno(), 4096):  # progress bars write parts of lines
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
            tail = (tail + chunk)[-4096:]
    lines = tail.decode(errors="replace").split("\n")
    return process.returncode, next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextmanager
def _forward_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Send signals to a training on: it is saved, and its end is the end of this program."""

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    # Ctrl-C on a terminal reaches both processes
    handlers = {signal.SIGTERM: forward, signal.SIGUSR1: forward, signal.SIGINT: lambda number, frame: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
