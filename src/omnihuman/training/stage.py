"""A stage is a run: build, load, freeze, fit, write down."""

import logging
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from omnihuman.build import build
from omnihuman.data.module import OmniData
from omnihuman.model.omni import OmniModel
from omnihuman.pl import pl
from omnihuman.training.answers import Answers
from omnihuman.training.callbacks import Account, MetricsTable, Throughput, progress_bar
from omnihuman.training.chain import Link, link, train_missing
from omnihuman.training.finished import filled, rebase
from omnihuman.training.runs import Run, is_main_process
from omnihuman.training.summary import write_summary
from omnihuman.training.supervised import Supervised
from omnihuman.training.trainable import Group, effective_table, set_trainable
from omnihuman.training.weights import canonical, load_weights, save_weights

log = logging.getLogger(__name__)
console = Console()


def run_stage(config: DictConfig, overrides: Sequence[str]) -> Run:
    """Train what the config says and return the finished run.

    Args:
        config: the composed root config ``train``.
        overrides: the command line it was composed from; parents get what they share with it.

    Raises:
        ValueError: something the user wrote does not hold; the message names it.
    """
    _log_to_console()
    if config.name is None:
        raise ValueError("no experiment: python -m omnihuman.train +experiment=humanomni_stage1 (see conf/experiment).")
    rebase(config, overrides)
    chain = link(config, overrides)
    run = chain.run
    if config.dry_run:
        rehearse(config, chain)
        return run
    train_missing(chain.parents, allowed=config.chain)
    with run.locked():
        if run.finished() and not config.overwrite:
            console.print(f"{run.folder} is finished already ({run.weights}); overwrite=true trains it again.")
            return run
        if is_main_process():
            run.open(config, overwrite=config.overwrite)
        fit(config, chain)
    return run


def rehearse(config: DictConfig, chain: Link) -> None:
    """Say what a run would do, without weights: its chain, its parts, its tokens, its steps.

    Models of the hub are built without memory; their text is counted by the package's own tokenizer.
    """
    for parent in chain.parents:
        console.print(f"starts from {parent.run.weights} ({'there' if parent.run.can_be_parent() else 'missing'})")
    config = config.copy()
    with torch.device("cpu" if config.size == "nano" else "meta"):
        config.random_weights = config.size != "nano"
        model: OmniModel = build(config.model)
    print_table(model, set_trainable(model, trainable_of(config)))
    for amounts in ({"frames": config.frames, "waveform": 10 * 16000}, {"frames": 1}, {"waveform": 30 * 16000}):
        counts = model.layouts(amounts)
        what = ", ".join(
            f"{n} frames" if key == "frames" else f"{n / 16000:g} s of sound" for key, n in amounts.items()
        )
        console.print(f"{what}: {counts['video']} video tokens, {counts['audio']} audio tokens")
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.layouts, model.llm.tokenizer, model.llm.chat)
    samples = data.train_samples
    console.print(
        f"{len(samples)} samples, {sum(samples.lengths)} tokens, {len(samples.skipped)} left out; an epoch is "
        f"{data.steps_per_epoch} steps of {data.batch_size}"
    )
    console.print(f"would be written to {chain.run.folder}")


def fit(config: DictConfig, chain: Link) -> None:
    """Train one run, whose parents are there and whose folder is open, to its end."""
    run = chain.run
    pl.seed_everything(config.seed, verbose=False)
    model, inherited = start_from(config, chain)
    groups = set_trainable(model, trainable_of(config))
    if is_main_process():
        print_table(model, groups)
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.layouts, model.llm.tokenizer, model.llm.chat, model.frozen)
    log.info("%d training samples, %d left out", len(data.train_samples), len(data.train_samples.skipped))
    # counted here: Lightning's own estimate would set the loader up before a checkpoint can say where it stands
    steps = data.steps_per_epoch * config.trainer.max_epochs
    steps = steps if config.trainer.max_steps < 0 else min(steps, config.trainer.max_steps)
    module = Supervised(model, groups, build(config.optimizer), build(config.scheduler), steps)
    checkpoint = run.checkpoint()
    speed, account = Throughput(), Account(run.folder / "skipped.jsonl")
    asked: Any = OmegaConf.to_container(config.answers, resolve=True)
    metrics = {task: build(metric) for task, metric in asked.pop("metrics").items()}
    callbacks = [speed, account, Answers(data, metrics, **asked)]
    trainer = _trainer(config, run, data, callbacks, checkpoint)
    started = time.perf_counter()
    if checkpoint is None and config.validate_first:
        trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt(f"interrupted; the same command goes on from {run.checkpoints}")
    if config.validate_last and trainer.global_step % data.steps_per_epoch:  # max_steps ended within an epoch
        trainer.validate(module, datamodule=data, verbose=False)
    state = {canonical(name): value for name, value in _full_state(module).items()}
    if trainer.is_global_zero:
        account.note(data.train_samples.skipped)  # what could not even be planned
    trained, skipped = account.totals()
    if trainer.is_global_zero:
        save_weights(run.weights, state, module.trained | inherited, {"experiment": config.name, "digest": run.digest})
        facts = {
            "experiment": config.name,
            "command": " ".join(chain.command),
            "steps": trainer.global_step,
            "seconds": time.perf_counter() - started,
            "planned": data.planned(trainer.global_step) + len(data.train_samples.skipped),
            "trained": trained,
            "skipped": skipped,
            "tokens_per_second": speed.tokens / max(1e-9, speed.worked + speed.waited),
            "samples_per_second": speed.samples / max(1e-9, speed.worked + speed.waited),
            "data_wait": speed.waited / max(1e-9, speed.worked + speed.waited),
            "gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0,
            "order": data.fingerprint,
            "next": next_command(config),
        }
        write_summary(run.folder, facts, console)
    trainer.strategy.barrier()


def start_from(config: DictConfig, chain: Link) -> tuple[OmniModel, set[str]]:
    """The model with what ``init_from`` names, in order; and the names that are no longer the foundation's."""
    if config.base is not None:
        without = list(config.init_from[0].without)
        model, inherited = filled(config.model, chain.parents[0].run.weights, without, new=True)
        log.info("base %s: %d tensors", config.base, len(inherited))
        return model, inherited
    model, inherited = build(config.model), set()
    for entry, parent in zip(config.init_from, chain.parents, strict=True):
        only: Any = entry.get("only", "*")
        report = load_weights(model, parent.run.weights, only if isinstance(only, str) else list(only))
        log.info("init_from %s: %s", entry.get("run") or entry.folder, report)
        inherited |= set(report.loaded)
    return model, inherited


def trainable_of(config: DictConfig) -> dict[str, Any]:
    """The table of what trains, as plain numbers."""
    table: Any = OmegaConf.to_container(config.trainable, resolve=True)
    return dict(table)


def print_table(model: OmniModel, groups: Sequence[Group]) -> None:
    """The effective table: what trains, at which rate."""
    table = Table(title="parts", title_justify="left")
    for column in ("part", "class", "parameters", "trainable", "lr"):
        table.add_column(column, justify="left" if column in ("part", "class") else "right")
    for part, name, total, trained, rate in effective_table(model, groups):
        table.add_row(part, name, f"{total:,}", f"{trained:,}", rate, style="bold" if trained else "dim")
    console.print(table)


def _trainer(config: DictConfig, run: Run, data: OmniData, callbacks: list[Any], checkpoint: Path | None) -> pl.Trainer:
    options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    every = options.pop("checkpoint_every")
    saver = pl.callbacks.ModelCheckpoint(
        run.checkpoints, filename="{step}", every_n_train_steps=every, save_top_k=1, save_on_train_epoch_end=False
    )
    saver.FILE_EXTENSION = ".ckpt"
    at = 0 if checkpoint is None else int(checkpoint.stem.split("=")[1])
    loggers = [
        MetricsTable(run.folder / "metrics.csv", resume_at=at),
        pl.loggers.TensorBoardLogger(str(run.folder), name="", version="tensorboard"),
    ]
    if options["strategy"] == "fsdp2":
        options["strategy"] = _fsdp2(options)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    trainer = pl.Trainer(
        callbacks=[*callbacks, saver, progress_bar(rich=console.is_terminal)],
        logger=loggers,
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.accumulate_grad_batches = data.rows_per_step(trainer.world_size, trainer.max_epochs or 1)
    return trainer


def _fsdp2(options: dict[str, Any]) -> Any:
    """Everything sharded over all devices; Lightning would put the devices of a node to tensor parallelism."""
    devices = options["devices"]
    if devices in ("auto", -1, "-1"):
        devices = max(1, torch.cuda.device_count())
    count = len(devices) if isinstance(devices, list) else int(devices)
    return pl.strategies.ModelParallelStrategy(data_parallel_size=count * options["num_nodes"], tensor_parallel_size=1)


def next_command(config: DictConfig) -> str:
    """What a user would want to do with a finished run."""
    where = "" if config.size == "nano" else f" size={config.size}"
    if config.next:
        return f"python -m omnihuman.train +experiment={config.next}{where}"
    run = f"{config.name}{where}"
    if config.variant or config.runs != "runs":
        run = f"'{Path(config.runs, config.size, config.name, config.variant or '')}'"
    return f'python -m omnihuman.generate run={run} video=clip.mp4 instruction="What is the main emotion?"'


def _full_state(module: Supervised) -> dict[str, Any]:
    """The parameters, gathered on rank 0 where they are sharded."""
    if not getattr(module, "_sharded", False):
        return dict(module.model.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(module.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _log_to_console() -> None:
    root = logging.getLogger()
    root.handlers = [RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)]
    transformers.utils.logging.set_verbosity_error()  # what it says of loading, encoders check and say themselves
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*in eval mode at the start of training.*")  # what is frozen is
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
    root.setLevel(logging.INFO if is_main_process() else logging.WARNING)
