"""Training of one stage: build the model, load weights, freeze, fit, save."""

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from omnihuman.build import build
from omnihuman.data.media import SAMPLE_RATE
from omnihuman.data.module import OmniData
from omnihuman.model.omni import OmniModel
from omnihuman.pl import pl
from omnihuman.training.callbacks import MetricsTable, SampleCounter, Throughput, build_progress_bar
from omnihuman.training.chain import Chain, resolve_chain, train_missing
from omnihuman.training.generation_metrics import GenerationMetrics
from omnihuman.training.model_folder import build_with_weights, rebase
from omnihuman.training.runs import Run, checkpoint_step, is_main_process
from omnihuman.training.summary import write_summary
from omnihuman.training.supervised import Supervised
from omnihuman.training.trainable import Group, effective_table, set_trainable
from omnihuman.training.weights import canonical_name, load_weights, save_weights

log = logging.getLogger(__name__)
console = Console()


def run_stage(config: DictConfig, overrides: Sequence[str]) -> Run:
    """Train the stage of a config and return its finished run.

    Args:
        config: the composed root config ``train``.
        overrides: the command line that it was composed from; the parents get the shared part of it.

    Raises:
        ValueError: the config is invalid; the message names the key.
    """
    _configure_logging()
    if config.name is None:
        raise ValueError("no experiment: python -m omnihuman.train +experiment=humanomni_stage1 (see conf/experiment).")
    config = rebase(config, overrides)
    chain = resolve_chain(config, overrides)
    run = chain.run
    if config.dry_run:
        print_dry_run(config, chain)
        return run
    train_missing(chain.parents, is_allowed=config.chain)
    with run.lock():
        if run.is_finished() and not config.overwrite:
            console.print(f"{run.folder} is finished already ({run.weights}); overwrite=true trains it again.")
            return run
        if is_main_process():
            run.open(config, overwrite=config.overwrite)
        fit(config, chain)
    return run


def print_dry_run(config: DictConfig, chain: Chain) -> None:
    """Print the chain, the parts, the tokens and the steps of a run, without loading weights.

    Models of the hub are built without memory, and the package's own tokenizer counts the text.
    """
    for parent in chain.parents:
        status = "there" if parent.run.can_be_parent() else "missing"
        console.print(f"starts from {parent.run.weights} ({status})")
    config = config.copy()
    with torch.device("cpu" if config.size == "nano" else "meta"):
        config.random_weights = config.size != "nano"
        model: OmniModel = build(config.model)
    print_parts(model, set_trainable(model, read_trainable(config)))
    _print_tokens(model, f"{config.frames} frames, 10 s of audio", frames=config.frames, waveform=10 * SAMPLE_RATE)
    _print_tokens(model, "1 frame", frames=1)
    _print_tokens(model, "30 s of audio", waveform=30 * SAMPLE_RATE)
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.chat)
    samples = data.train_samples
    console.print(
        f"{len(samples)} samples, {sum(samples.lengths)} tokens, {len(samples.skipped)} skipped; an epoch has "
        f"{data.steps_per_epoch} steps of {data.batch_size}"
    )
    console.print(f"the run would be written to {chain.run.folder}")


def _print_tokens(model: OmniModel, title: str, **amounts: int) -> None:
    counts = model.count_tokens(amounts)
    console.print(f"{title}: {counts['video']} video tokens, {counts['audio']} audio tokens")


def fit(config: DictConfig, chain: Chain) -> None:
    """Train one run to its end and write its weights and summary; its parents are finished and its folder is open."""
    run = chain.run
    pl.seed_everything(config.seed, verbose=False)
    model, inherited = build_initial_model(config, chain)
    groups = set_trainable(model, read_trainable(config))
    if is_main_process():
        print_parts(model, groups)
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.chat, model.frozen_encoders)
    log.info("%d training samples, %d skipped", len(data.train_samples), len(data.train_samples.skipped))
    module = Supervised(model, groups, build(config.optimizer), build(config.scheduler), _count_steps(config, data))
    checkpoint = run.find_checkpoint()
    throughput, counter = Throughput(), SampleCounter(run.folder / "skipped.jsonl")
    callbacks = [throughput, counter, _build_generation_metrics(config, data)]
    trainer = _build_trainer(config, run, data, callbacks, checkpoint)
    start = time.perf_counter()
    _run_trainer(trainer, module, data, config, checkpoint)
    if trainer.interrupted:
        raise KeyboardInterrupt(f"interrupted; the same command resumes from {run.checkpoints}")
    state = {canonical_name(name): value for name, value in _gather_state(module).items()}
    if trainer.is_global_zero:
        counter.add_skipped(data.train_samples.skipped)  # samples that could not be planned
    num_trained, skipped = counter.totals()
    if trainer.is_global_zero:
        metadata = {"experiment": config.name, "digest": run.digest}
        save_weights(run.weights, state, module.trainable_names | inherited, metadata)
        facts = {
            "experiment": config.name,
            "command": " ".join(chain.command),
            "steps": trainer.global_step,
            "seconds": time.perf_counter() - start,
            "planned": data.count_planned(trainer.global_step) + len(data.train_samples.skipped),
            "trained": num_trained,
            "skipped": skipped,
            **throughput.summary(),
            "gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30,  # 0 without a GPU
            "order": data.fingerprint,
            "next": build_next_command(config),
        }
        write_summary(run.folder, facts, console)
    trainer.strategy.barrier()


def _count_steps(config: DictConfig, data: OmniData) -> int:
    """Return the optimizer steps of a run.

    Lightning's own estimate would set the loader up, before a checkpoint can set its position.
    """
    steps: int = data.steps_per_epoch * config.trainer.max_epochs
    if config.trainer.max_steps >= 0:
        steps = min(steps, config.trainer.max_steps)
    return steps


def _build_generation_metrics(config: DictConfig, data: OmniData) -> GenerationMetrics:
    options: Any = OmegaConf.to_container(config.validation, resolve=True)
    metrics = {task: build(metric) for task, metric in options.pop("metrics").items()}
    return GenerationMetrics(data, metrics, **options)


def _run_trainer(
    trainer: pl.Trainer, module: Supervised, data: OmniData, config: DictConfig, checkpoint: Path | None
) -> None:
    """Fit, from a checkpoint if there is one, with the validations of ``validate_first`` and ``validate_last``."""
    if checkpoint is None and config.validate_first:
        trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=False)
    ended_within_epoch = trainer.global_step % data.steps_per_epoch  # because of max_steps
    if config.validate_last and ended_within_epoch and not trainer.interrupted:
        trainer.validate(module, datamodule=data, verbose=False)


def build_initial_model(config: DictConfig, chain: Chain) -> tuple[OmniModel, set[str]]:
    """Return the model with the weights of ``init_from`` or ``base``, and the names of the loaded parameters."""
    if config.base is not None:
        without = list(config.init_from[0].without)
        model, inherited = build_with_weights(config.model, chain.parents[0].run.weights, without, allow_new=True)
        log.info("base %s: %d tensors", config.base, len(inherited))
        return model, inherited
    model, inherited = build(config.model), set()
    for entry, parent in zip(config.init_from, chain.parents, strict=True):
        report = load_weights(model, parent.run.weights, entry.get("only", "*"))
        log.info("init_from %s: %s", entry.get("run") or entry.folder, report)
        inherited.update(report.loaded)
    return model, inherited


def read_trainable(config: DictConfig) -> dict[str, Any]:
    """Return the table of learning rates as plain numbers."""
    table: Any = OmegaConf.to_container(config.trainable, resolve=True)
    return dict(table)


def print_parts(model: OmniModel, groups: Sequence[Group]) -> None:
    """Print the parts of a model with their parameters and learning rates."""
    table = Table(title="parts", title_justify="left")
    for column in ("part", "class", "parameters", "trainable", "lr"):
        table.add_column(column, justify="left" if column in ("part", "class") else "right")
    for row in effective_table(model, groups):
        style = "bold" if row.num_trainable else "dim"
        numbers = (f"{row.num_parameters:,}", f"{row.num_trainable:,}")
        table.add_row(row.part, row.class_name, *numbers, row.rate, style=style)
    console.print(table)


def _build_trainer(
    config: DictConfig, run: Run, data: OmniData, callbacks: Sequence[Any], checkpoint: Path | None
) -> pl.Trainer:
    options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    saver = pl.callbacks.ModelCheckpoint(
        run.checkpoints,
        filename="{step}",
        every_n_train_steps=options.pop("checkpoint_every"),
        save_top_k=1,
        save_on_train_epoch_end=False,
    )
    saver.FILE_EXTENSION = ".ckpt"
    resume_at = 0 if checkpoint is None else checkpoint_step(checkpoint)
    loggers = [
        MetricsTable(run.folder / "metrics.csv", resume_at=resume_at),
        pl.loggers.TensorBoardLogger(str(run.folder), name="", version="tensorboard"),
    ]
    if options["strategy"] == "fsdp2":
        options["strategy"] = _build_fsdp2(options)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    trainer = pl.Trainer(
        callbacks=[*callbacks, saver, build_progress_bar(is_rich=console.is_terminal)],
        logger=loggers,
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.accumulate_grad_batches = data.count_micro_batches(trainer.world_size, trainer.max_epochs or 1)
    return trainer


def _build_fsdp2(options: Mapping[str, Any]) -> Any:
    """Return the strategy that shards over all devices.

    Lightning's default would use the devices of a node for tensor parallelism.
    """
    devices = options["devices"]
    if devices in ("auto", -1, "-1"):
        devices = max(1, torch.cuda.device_count())
    num_devices = len(devices) if isinstance(devices, list) else int(devices)
    return pl.strategies.ModelParallelStrategy(
        data_parallel_size=num_devices * options["num_nodes"], tensor_parallel_size=1
    )


def build_next_command(config: DictConfig) -> str:
    """Return the command that follows a finished run: the next stage, or a question to the model."""
    size = "" if config.size == "nano" else f" size={config.size}"
    if config.next:
        return f"python -m omnihuman.train +experiment={config.next}{size}"
    run = f"{config.name}{size}"
    if config.variant or config.runs != "runs":
        run = f"'{Path(config.runs, config.size, config.name, config.variant or '')}'"
    return f'python -m omnihuman.generate run={run} video=clip.mp4 instruction="What is the main emotion?"'


def _gather_state(module: Supervised) -> dict[str, Any]:
    """Return the model's state, gathered on rank 0 if it is sharded."""
    if not getattr(module, "_sharded", False):
        return dict(module.model.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(module.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


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
