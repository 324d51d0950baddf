"""The place that builds a stage: model, data, objective and trainer from its config."""

import logging
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.data.ceiling import summarize_reasons
from omnihuman.data.dataset import Samples
from omnihuman.data.mixture import describe_other_tasks
from omnihuman.data.module import OmniData
from omnihuman.modality import strip_tags
from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import set_trainable
from omnihuman.objective.base import Objective
from omnihuman.pl import pl
from omnihuman.source.root import read_records_folder
from omnihuman.training.bad_loss import BadLossPolicy
from omnihuman.training.callbacks import EarlyStopping, MetricsTable, Throughput, build_progress_bar
from omnihuman.training.chain import Chain
from omnihuman.training.counter import SampleCounter
from omnihuman.training.generation_metrics import GenerationMetrics
from omnihuman.training.model_folder import build_with_weights
from omnihuman.training.option_metrics import build_option_metrics
from omnihuman.training.precision import build_precision
from omnihuman.training.runs import Run, checkpoint_step, is_main_process
from omnihuman.training.sharded import ShardedStrategy
from omnihuman.training.weights import load_weights

log = logging.getLogger(__name__)

BAD_LOSS_CURE = (
    "Lower the learning rate (recipe.lr), or clip the gradient (trainer.gradient_clip_val=1.0); on_bad_loss=skip does "
    "not take such steps; the same command with replay=<a file of bad_loss> shows where the batch fails."
)


@dataclass(frozen=True)
class Stage:
    """All that a stage needs to be trained and written.

    Attributes:
        name: of its experiment.
        run: its folder.
        command: the command line that trains it.
        objective: with the model.
        data: connected to the model.
        trainer: with all callbacks and loggers.
        checkpoint: that the training resumes from.
        inherited: names of the parameters that come from parents or a base.
        metrics: the table of the run.
        throughput: measures the speed.
        counter: counts trained and skipped samples.
        bad_loss: checks loss, gradient and weights.
        validate_first: validate before the first step.
        validate_last: validate after the last step, also within an epoch.
        next_command: the commands that follow a finished run.
    """

    name: str
    run: Run
    command: Sequence[str]
    objective: Objective
    data: OmniData
    trainer: pl.Trainer
    checkpoint: Path | None
    inherited: set[str]
    metrics: MetricsTable
    throughput: Throughput
    counter: SampleCounter
    bad_loss: BadLossPolicy
    validate_first: bool
    validate_last: bool
    next_command: str


def build_stage(config: DictConfig, chain: Chain, is_terminal: bool) -> Stage:
    """Build the stage of a composed config; its parents are finished and its folder is open.

    Args:
        config: of the stage.
        chain: the run with its parents.
        is_terminal: draw a rich progress bar.

    Raises:
        ValueError: the config is invalid; the message names the key.
    """
    run = chain.run
    config = config.copy()
    config.folder = str(run.folder)  # where loggers write
    pl.seed_everything(config.seed, verbose=False)
    precision = build_precision(str(config.trainer.precision), config.trainer.accelerator)
    model, inherited = build_initial_model(config, chain)
    precision.convert_module(model)  # before a checkpoint is loaded: Lightning casts after it
    groups = set_trainable(model, read_trainable(config))
    checkpoint = None if config.overwrite else run.find_checkpoint()
    data = _build_data(config, model, run, is_resumed=checkpoint is not None)
    objective: Objective = build(config.objective)(
        model,
        groups,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        total_steps=count_steps(config, data),
    )
    throughput, counter = Throughput(), SampleCounter(run.folder / "skipped.jsonl", data.max_skipped)
    bad_loss = BadLossPolicy(run.folder, counter, config.on_bad_loss, cure=BAD_LOSS_CURE)
    callbacks = [
        throughput,
        counter,
        bad_loss,
        _build_generation_metrics(config, data),
        *build_all(config.callback),
        _build_saver(config, run),
        build_progress_bar(is_rich=is_terminal),
    ]
    _check_early_stopping(config, data, callbacks)
    metrics = MetricsTable(run.folder / "metrics.csv", resume_at=checkpoint_step(checkpoint) if checkpoint else 0)
    return Stage(
        name=config.name,
        run=run,
        command=chain.command,
        objective=objective,
        data=data,
        trainer=_build_trainer(config, data, precision, callbacks, [metrics, *build_all(config.logger)]),
        checkpoint=checkpoint,
        inherited=inherited,
        metrics=metrics,
        throughput=throughput,
        counter=counter,
        bad_loss=bad_loss,
        validate_first=config.validate_first,
        validate_last=config.validate_last,
        next_command=build_next_command(config, data),
    )


def _build_data(config: DictConfig, model: OmniModel, run: Run, *, is_resumed: bool) -> OmniData:
    """Build the data and plan its samples; a resumed run excludes those that it excluded at its start."""
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template, model.frozen_encoders)
    data.freeze(run.folder / "excluded.jsonl", is_resumed=is_resumed, is_main=is_main_process())
    log_samples(data.train_samples)
    for line in describe_other_tasks(data.other_tasks):
        log.warning("%s", line)
    return data


def log_samples(samples: Samples) -> None:
    """Log the number of training samples, of skipped ones and of answers that are cut."""
    log.info("%d training samples, %d skipped", len(samples), len(samples.skipped))
    if samples.skipped:
        log.warning("skipped: %s", summarize_reasons(samples.skipped))
    if cut := samples.cut_answers:
        log.warning("%d answers are cut at data.max_length, the first of %s", len(cut), cut[0])


def build_all(nodes: Mapping[str, Any] | DictConfig | None) -> list[Any]:
    """Build every node of a group of which several may be selected, such as ``logger=[tensorboard,wandb]``.

    Raises:
        ValueError: a node cannot be built, or its package is not installed.
    """
    objects = []
    for name, node in (nodes or {}).items():
        if node is not None:
            objects.append(_build_option(str(name), node))
    return objects


def _check_early_stopping(config: DictConfig, data: OmniData, callbacks: Sequence[Any]) -> None:
    """Check that a run validates if validations end it.

    Raises:
        ValueError: it never does.
    """
    if not any(isinstance(callback, EarlyStopping) for callback in callbacks):
        return
    num_steps = data.steps_per_epoch * config.trainer.check_val_every_n_epoch
    if not len(data.val_samples) or not config.trainer.limit_val_batches or count_steps(config, data) < num_steps:
        raise ValueError(
            f"callback=early_stopping: this run never validates; give data.val_records, or train {num_steps} steps or "
            "more, or remove the callback."
        )


def _build_option(name: str, node: Any) -> Any:
    try:
        return build(node)
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, ModuleNotFoundError):
            raise ValueError(f"{name}: {cause}") from error
        raise


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


def count_steps(config: DictConfig, data: OmniData) -> int:
    """Return the optimizer steps of a run.

    Lightning's own estimate would set the loader up, before a checkpoint can set its position.
    """
    steps: int = data.steps_per_epoch * config.trainer.max_epochs
    if config.trainer.max_steps >= 0:
        steps = min(steps, config.trainer.max_steps)
    return steps


def build_next_command(config: DictConfig, data: OmniData) -> str:
    """Return the commands that follow a finished run, one a line: a question, the test split, and the next stage."""
    size = "" if config.size == "nano" else f" size={config.size}"
    run = f"run={config.name}{size}"
    if config.variant or config.runs != "runs":
        run = shlex.quote(f"run={Path(config.runs, config.size, config.name, config.variant or '')}")
    commands = [f"omnihuman generate {run} {build_question(data, config.validation.metrics)}"]
    path = config.data.get("path")
    if path and (test := read_records_folder(path).test):
        commands.append(f"omnihuman evaluate {run} benchmark=records benchmark.path={shlex.quote(str(test))}")
    if config.next:
        commands.append(f"omnihuman train +experiment={config.next}{size}")
    return "\n".join(commands)


def build_question(data: OmniData, tasks: Collection[str]) -> str:
    """Return the arguments of ``generate`` that ask a question of the run's own data.

    Args:
        data: of the run; it asks a validation record, a training record if there is none.
        tasks: of a record that is preferred.
    """
    records = [planned.record for planned in data.val_samples.planned or data.train_samples.planned]
    record = next((record for record in records if record.task in tasks), records[0])
    text = strip_tags(record.messages[0][1])
    arguments = [f"instruction={' '.join(text.split())}"]
    if record.kind != "text":
        arguments.insert(0, f"{record.kind}={record.file}")
    for name, second in (("start", record.start), ("end", record.end)):
        if second:
            arguments.append(f"{name}={second:g}")
    return shlex.join(arguments)


def _build_generation_metrics(config: DictConfig, data: OmniData) -> GenerationMetrics:
    options: Any = OmegaConf.to_container(config.validation, resolve=True)
    metrics = {}
    if options.pop("metrics_from_options"):
        metrics = build_option_metrics(entry for _, entry in data.read_entries("val"))
    metrics |= {task: build(metric) for task, metric in options.pop("metrics").items()}
    return GenerationMetrics(data, metrics, **options)


def _build_saver(config: DictConfig, run: Run) -> pl.Callback:
    saver = pl.callbacks.ModelCheckpoint(
        run.checkpoints,
        filename="{step}",
        every_n_train_steps=config.trainer.checkpoint_every,
        save_top_k=1,
        save_on_train_epoch_end=False,
    )
    saver.FILE_EXTENSION = ".ckpt"
    return saver


def _build_trainer(
    config: DictConfig, data: OmniData, precision: Any, callbacks: Sequence[Any], loggers: Sequence[Any]
) -> pl.Trainer:
    options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    del options["checkpoint_every"], options["precision"]
    if options["strategy"] == "fsdp2":
        options["strategy"] = _build_fsdp2(options)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    trainer = pl.Trainer(
        plugins=[precision],
        callbacks=list(callbacks),
        logger=list(loggers),
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
    return ShardedStrategy(data_parallel_size=num_devices * options["num_nodes"], tensor_parallel_size=1)
