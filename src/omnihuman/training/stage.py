"""Training of one stage: compose, resolve base and chain, build, fit, write."""

import gc
import itertools
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig
from rich.console import Console
from rich.logging import RichHandler

from omnihuman.build import compose_config
from omnihuman.data.notices import Notices
from omnihuman.pl import pl
from omnihuman.training.assembly import Stage, build_all, build_stage
from omnihuman.training.attempt import discard_start, find_attempt, open_attempt, restore_finished, take_over
from omnihuman.training.callbacks import Connected
from omnihuman.training.chain import Chain, resolve_chain, train_missing
from omnihuman.training.checkpoint import find_change
from omnihuman.training.data_module import DataModule
from omnihuman.training.devices import check_devices, count_ranks
from omnihuman.training.dry_run import print_dry_run, print_parts
from omnihuman.training.interruption import end_outside_of_steps
from omnihuman.training.launcher import check_launcher, is_launched, is_main_process, open_notices
from omnihuman.training.parents import check_parents
from omnihuman.training.ranks import end_with_launcher, explain_ended_process
from omnihuman.training.recomputation import choose_recomputation
from omnihuman.training.replay import replay_batches
from omnihuman.training.runs import Run
from omnihuman.training.shards import copy_weights
from omnihuman.training.summary import print_summary, write_summary

log = logging.getLogger(__name__)

console = Console()


def run_stage(
    config: DictConfig, overrides: Sequence[str], callbacks: Sequence[pl.Callback] = (), *, is_parent: bool = False
) -> Run:
    """Train the stage of a config and return its finished run.

    Args:
        config: the composed root config ``train``.
        overrides: the command line that it was composed from; the parents get the shared part of it.
        callbacks: of Lightning, in addition to those of the config.
        is_parent: a run with this config on any data files will do, as of a parent.

    Raises:
        Interrupted: a signal has ended it.
        ValueError: the config is invalid; the message names the key.
    """
    _configure_logging()
    end_with_launcher()
    with end_outside_of_steps():
        return _run_stage(config, overrides, callbacks, is_parent=is_parent)


def _run_stage(
    config: DictConfig, overrides: Sequence[str], callbacks: Sequence[pl.Callback], *, is_parent: bool
) -> Run:
    chain = resolve_chain(config, overrides)
    run, config = chain.run, chain.config
    if config.dry_run:
        print_dry_run(config, chain, console)
        return run
    check_devices(config.trainer.accelerator, config.trainer.devices)
    num_ranks = count_ranks(config.trainer.devices, config.trainer.num_nodes)
    check_launcher(num_ranks)
    if config.chain:
        check_parents(chain)
    if not all(parent.run.can_be_parent() for parent in chain.parents):
        build_all(config.callback)  # so that a mistake in them is shown before the parents are trained
    train_missing(chain.parents, bool(config.chain), _train_parent if is_launched() else None)
    if config.replay is not None:
        replay_batches(config, chain, console)
        return run
    notices = open_notices(run.folder, num_ranks, config.trainer.num_nodes)
    with notices.open(), run.lock():
        if _is_finished(run, config.overwrite, notices, is_parent=is_parent):
            console.print(f"{run.folder} is finished already ({run.weights}); overwrite=true trains it again.")
            return run
        stage = _open_and_build(config, chain, notices)
        stage.trainer.callbacks += [*callbacks, Connected(notices)]
        with explain_ended_process(stage.trainer):
            seconds = fit(stage)
            facts = write_results(stage, seconds)
            if is_main_process():
                if stage.run != run:
                    take_over(run)
                print_summary(run.folder, facts, console)
            stage.trainer.strategy.barrier()  # a child that starts now finds the run in its folder
    return run


def _is_finished(run: Run, overwrite: bool, notices: Notices, *, is_parent: bool) -> bool:
    """Return true if there is nothing to train: another process may have finished the run while this one waited."""

    def is_there() -> bool:
        return not overwrite and (run.is_finished() or (is_parent and run.can_be_parent()))

    # a process that comes late may find the run, and the notices gone
    verdict = notices.share("finished", lambda: restore_finished(run, overwrite) or is_there(), is_there)
    return verdict is None or bool(verdict)


def _train_parent(overrides: Sequence[str]) -> None:
    """Train a parent in this process, and free its memory."""
    run_stage(compose_config(overrides), overrides, is_parent=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _open_and_build(config: DictConfig, chain: Chain, notices: Notices) -> Stage:
    """Build the stage in the folder of its run, or beside it as long as the folder holds another run.

    Whatever fails from here on, a run that was there stays as it is.
    """
    folder = notices.share("folder", lambda: _open_folder(config, chain.run))
    run = replace(chain.run, folder=Path(folder))
    try:
        checkpoint = _choose_checkpoint(config, run, notices)
        stage = build_stage(config, replace(chain, run=run), checkpoint, notices, is_rich=console.is_terminal)
        choose_recomputation(config, stage.objective.model)
    except BaseException:
        if is_main_process():
            discard_start(run)
        raise
    if is_main_process():
        print_parts(stage.objective.model, stage.objective.groups, console)
        if run != chain.run:
            log.warning(
                "%s holds another run (other config, or overwrite=true), which stays until this one is finished. This "
                "one is trained in %s.",
                chain.run.folder,
                run.folder,
            )
    return stage


def _open_folder(config: DictConfig, run: Run) -> str:
    """Create the folder in which a run is trained, and return it."""
    attempt = find_attempt(run, config.overwrite)
    open_attempt(attempt, config, config.overwrite)
    return str(attempt.folder)


def _choose_checkpoint(config: DictConfig, run: Run, notices: Notices) -> Path | None:
    """Return the checkpoint that the main process has found, ``None`` for a training from its start.

    The processes of a launcher check a share of its files each: at 64 of them, to read all of it 64 times takes longer
    than the training up to the next checkpoint.
    """
    numbers = itertools.count()

    def check(checkpoint: Path) -> str | None:
        notice = f"check {next(numbers)}"
        notices.publish(notice, str(checkpoint))
        problem = find_change(checkpoint, 0, notices.num_places)
        return next((problem for problem in notices.gather(notice, problem) if problem is not None), None)

    def find() -> str | None:
        checkpoint = None if config.overwrite else run.find_checkpoint(check)
        notices.publish(f"check {next(numbers)}", None)
        return None if checkpoint is None else str(checkpoint)

    if not notices.is_main and notices.place is not None:
        _check_share(notices, notices.place)
    place = notices.share("checkpoint", find)
    return None if place is None else Path(place)


def _check_share(notices: Notices, place: int) -> None:
    """Check a share of the files of every checkpoint that the main process names."""
    for number in itertools.count():
        notice = f"check {number}"
        checkpoint = notices.wait(notice)
        if checkpoint is None:
            return
        notices.gather(notice, find_change(Path(checkpoint), place, notices.num_places))


def fit(stage: Stage) -> float:
    """Train a stage to its end, from its checkpoint if there is one, and return the seconds that it took.

    Raises:
        ValueError: the checkpoint cannot be read.
        KeyboardInterrupt: the training was interrupted; the same command resumes it.
    """
    trainer, objective, data = stage.trainer, stage.objective, DataModule(stage.data)
    start = time.perf_counter()
    if stage.checkpoint is None and stage.validate_first:
        trainer.validate(objective, datamodule=data, verbose=False)
    checkpoint = None if stage.checkpoint is None else str(stage.checkpoint)
    trainer.fit(objective, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt(f"interrupted; the same command resumes from {stage.run.checkpoints}")
    if stage.has_validation and stage.selection.last_step != trainer.global_step:
        trainer.validate(objective, datamodule=data, verbose=False)
    return time.perf_counter() - start


def write_results(stage: Stage, seconds: float) -> dict[str, Any]:
    """Write the weights, the ledger and at last the marker of a fitted stage; every rank must call it.

    Returns:
        the content of the ledger; empty but in the main process.

    Raises:
        ValueError: the weights are not finite.
    """
    run, trainer, data, selection = stage.run, stage.trainer, stage.data, stage.selection
    is_best = stage.select == "best"
    if not is_best:
        stage.bad_loss.check_weights(trainer, stage.objective)
    unplanned = [*data.train_samples.skipped, *data.tasks.unlisted]
    stage.counter.add_unplanned(unplanned, trainer.is_global_zero)
    if not is_best:
        stage.write_weights(run.weights)
    step, monitor = trainer.global_step, None
    if is_best:
        step, monitor = selection.best_step, selection.monitor
    facts: dict[str, Any] = {}
    if trainer.is_global_zero:
        if is_best:
            copy_weights(selection.find_weights(), run.weights)
        facts = {
            "experiment": stage.name,
            "command": " ".join(stage.command),
            "steps": trainer.global_step,
            "weights_of_step": step,
            "selected_by": monitor,
            "seconds": seconds,
            "planned": data.count_planned(trainer.global_step) + len(unplanned),
            "trained": stage.counter.num_trained,
            "skipped": dict(stage.counter.skipped),
            "val_skipped": dict(stage.counter.val_skipped),
            "answer_cut": len(data.train_samples.cut_answers),
            "audio_gaps": stage.counter.audio_gaps,
            **stage.throughput.summary(),
            **stage.ledger.summary(),
            "gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30,  # 0 without a GPU
            "order": data.fingerprint,
            "next": stage.next_command,
        }
        facts = write_summary(run.folder, facts)
        run.finish()
        if is_best:
            selection.finish()
    trainer.strategy.barrier()
    return facts


def _configure_logging() -> None:
    root = logging.getLogger()
    root.handlers = [RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)]
    root.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    transformers.utils.logging.set_verbosity_error()  # the encoders check their weights and report themselves
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*in eval mode at the start of training.*")  # frozen parts are
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=r".*overridden `on_before_batch_transfer`.*")  # the data has none
