"""The folder in which a run is trained: its own, or one beside it while its own holds another run; none is lost.

A run is trained in ``<folder>.new`` if its folder holds a run of another config, or a finished one. When it is
finished, it takes the folder, and what was there moves to ``<folder>.<number>``.
"""

import glob
import itertools
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.training.checkpoint import list_checkpoints
from omnihuman.training.runs import DIGEST, FINISHED, TIME_FILE, Run
from omnihuman.training.shards import has_weights

log = logging.getLogger(__name__)

SUFFIX = ".new"
"""Of the folder of an attempt."""

OF_STARTS = (".lock", ".start")
"""Ends of the names of files beside the folder of a run: it may lie within that of another one."""

MOVING = "moving"
"""File in a folder to which a process is moving the files of a run, its digest at last."""

START_FILES = {
    DIGEST,
    "config.yaml",
    "excluded.jsonl",
    "plans.json",
    "checkpoints",
    "metrics.csv",
    "profile",
    "skipped.jsonl",
    "tensorboard",
    TIME_FILE,
}
"""Files that a run writes before its first checkpoint."""


def locate_attempt(run: Run) -> Run:
    """Return a run in the folder beside its own."""
    return replace(run, folder=run.folder.with_name(f"{run.folder.name}{SUFFIX}"))


def find_attempt(run: Run, overwrite: bool = False) -> Run:
    """Return a run in the folder in which it is trained or resumed.

    Args:
        run: not finished.
        overwrite: train it again from its start.

    Raises:
        ValueError: it was interrupted before the config changed, and the config is now the old one again.
    """
    attempt = locate_attempt(run)
    if overwrite:
        return attempt if _has_weights(run) else run
    for place in (attempt, run):
        if place.find_checkpoint() is not None:
            return place
    for displaced in _find_displaced(run):
        if displaced.find_checkpoint() is not None:
            removal = f"mv '{attempt.folder}' '{_find_free_folder(run)}' && " if attempt.folder.exists() else ""
            raise ValueError(
                f"{displaced.folder} holds this run, interrupted before another config took its place; to resume it: "
                f"{removal}mv '{displaced.folder}' '{attempt.folder}'; to start again: overwrite=true"
            )
    is_started = run.read_digest() == run.digest and not run.is_complete()
    return run if is_started or not _has_weights(run) else attempt


def open_attempt(run: Run, config: DictConfig, overwrite: bool = False) -> None:
    """Create the folder of a run; files of another config in it make room, with ``overwrite`` those of the same too."""
    stored = run.read_digest()
    if stored is not None and (overwrite or stored != run.digest):
        _clear(run)
    run.open(config)


def discard_start(run: Run) -> bool:
    """Delete the files of a start that has nothing to be resumed or read; return false if there is more."""
    names = {path.name for path in _own_files(run.folder)}
    if _has_weights(run) or names - START_FILES:
        return False
    for name in names:
        path = run.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if run.folder.is_dir() and not any(run.folder.iterdir()):
        run.folder.rmdir()
    return True


def take_over(run: Run) -> None:
    """Move a finished attempt to the folder of its run, and what is there to ``<folder>.<number>``.

    A process that is killed within leaves ``finished`` in the attempt's folder; the next one does the rest.
    """
    source = locate_attempt(run).folder
    if (source / DIGEST).is_file() and any(_own_files(run.folder)):  # otherwise they have moved already
        target = _move_aside(run)
        log.warning("the run that was in %s is in %s; %s brings it back", run.folder, target, _read_command(target))
    run.folder.mkdir(exist_ok=True)
    _move_files(source, run.folder, first=DIGEST, last=FINISHED)
    source.rmdir()


def _read_command(folder: Path) -> str:
    """Return the command that has trained a run."""
    ledger = folder / "ledger.json"
    if not ledger.is_file():
        return "its command"
    return f"`{json.loads(ledger.read_text()).get('command', 'its command')}`"


def restore_finished(run: Run, overwrite: bool = False) -> bool:
    """Return true if a run is finished; where its files are beside its folder, they are brought back to it.

    They are there if the config has changed and is now the old one again (``<folder>.<number>``), or if the process was
    killed when it moved them (``<folder>.new``). Only the main process may call it.

    Args:
        run: of this config.
        overwrite: false is returned, since it is to be trained again.
    """
    attempt = locate_attempt(run)
    if (attempt.folder / FINISHED).is_file():
        take_over(run)
    displaced = next((other for other in _find_displaced(run) if other.is_finished()), None)
    if not overwrite and not run.is_finished() and displaced is not None:
        _clear(attempt)
        displaced.folder.rename(attempt.folder)
        log.warning("%s holds the finished run of this config: it moves back", displaced.folder)
        take_over(run)
    return not overwrite and run.is_finished()


def _find_displaced(run: Run) -> Iterator[Run]:
    """Yield a run in the folders ``<folder>.<number>``, to which runs of other configs have moved, the newest first."""
    folders = run.folder.parent.glob(f"{glob.escape(run.folder.name)}.*")
    numbers = [int(folder.suffix[1:]) for folder in folders if folder.suffix[1:].isdecimal()]
    for number in sorted(numbers, reverse=True):
        yield replace(run, folder=run.folder.with_name(f"{run.folder.name}.{number}"))


def _clear(run: Run) -> None:
    """Move the files of a run's folder to ``<folder>.<number>``; those of a start without a checkpoint are deleted."""
    if not discard_start(run):
        target = _move_aside(run)
        log.warning("%s held another run (other config, or overwrite=true): it is in %s", run.folder, target)


def _has_weights(run: Run) -> bool:
    return has_weights(run.weights) or bool(list_checkpoints(run.checkpoints))


def _move_aside(run: Run) -> Path:
    """Move the files of a run's folder to ``<folder>.<number>``, and return it."""
    target = _find_free_folder(run)
    target.mkdir(exist_ok=True)
    (target / MOVING).touch()
    _move_files(run.folder, target, first=FINISHED, last=DIGEST)
    (target / MOVING).unlink()
    return target


def _find_free_folder(run: Run) -> Path:
    name = run.folder.name.removesuffix(SUFFIX)
    for number in itertools.count(1):
        target = run.folder.with_name(f"{name}.{number}")
        is_incomplete = (target / MOVING).is_file() and not (target / DIGEST).is_file()  # a process was killed here
        if is_incomplete or not target.exists():
            break
    return target


def _own_files(folder: Path) -> list[Path]:
    """Return the files and folders of a run, without the cells of a sweep, which may be training at the moment."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix not in OF_STARTS and not (path / DIGEST).is_file()]


def _move_files(source: Path, target: Path, *, first: str, last: str) -> None:
    """Move the files of a run to another folder, one after the other; these two at the beginning and at the end."""
    paths = {path.name: path for path in _own_files(source)}
    for name in sorted(paths, key=lambda name: (name == last, name != first)):
        paths[name].rename(target / name)
