"""The place that builds a stage: model, data, objective and trainer from its config."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.data.ceiling import summarize_reasons
from omnihuman.data.dataset import Samples
from omnihuman.data.module import OmniData
from omnihuman.data.notices import Notices
from omnihuman.model.materialize import materialize
from omnihuman.model.omni import OmniModel
from omnihuman.model.sharding import frozen_encoders
from omnihuman.model.trainable import Group, set_trainable
from omnihuman.nn.deferred import Recording
from omnihuman.objective.base import Objective
from omnihuman.pl import pl
from omnihuman.training.bad_loss import BadLossPolicy
from omnihuman.training.callbacks import MetricsTable, Throughput, build_progress_bar
from omnihuman.training.chain import Chain
from omnihuman.training.checkpoint import Background, checkpoint_step
from omnihuman.training.counter import SampleCounter
from omnihuman.training.devices import count_ranks, select_environment
from omnihuman.training.fusion_weights import FusionWeights
from omnihuman.training.generation_metrics import GenerationMetrics
from omnihuman.training.interruption import Interruption
from omnihuman.training.ledger import Ledger
from omnihuman.training.model_folder import build_with_weights
from omnihuman.training.next_command import build_next_command, find_record
from omnihuman.training.option_metrics import build_option_metrics
from omnihuman.training.precision import build_precision
from omnihuman.training.profile import StepProfile
from omnihuman.training.runs import Run
from omnihuman.training.saver import CheckpointFolders, Saver
from omnihuman.training.selection import Selection, unknown_monitor
from omnihuman.training.sharded import build_sharded_strategy, check_not_sharded
from omnihuman.training.weights import load_weights, write_weights

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
        throughput: measures the speed.
        ledger: counts FLOPs and seconds.
        counter: counts trained and skipped samples.
        bad_loss: checks loss, gradient and weights.
        select: ``last`` or ``best``: the step whose weights are the run's.
        selection: knows the validations.
        has_validation: there is something to validate.
        validate_first: validate before the first step.
        write_weights: writes the weights of the moment to a file; every rank must call it.
        next_command: the commands that follow a finished run.
    """

    name: str
    run: Run
    command: Sequence[str]
    objective: Objective
    data: OmniData
    trainer: pl.Trainer
    checkpoint: Path | None
    throughput: Throughput
    ledger: Ledger
    counter: SampleCounter
    bad_loss: BadLossPolicy
    select: str
    selection: Selection
    has_validation: bool
    validate_first: bool
    write_weights: Callable[[Path], None]
    next_command: str


def build_stage(config: DictConfig, chain: Chain, checkpoint: Path | None, notices: Notices, is_rich: bool) -> Stage:
    """Build the stage of a composed config; its parents are finished and its folder is open.

    Args:
        config: of the stage.
        chain: the run with its parents.
        checkpoint: that the training resumes from.
        notices: by which the main process tells the others its plans.
        is_rich: draw a rich progress bar.

    Raises:
        ValueError: the config is invalid; the message names the key.
    """
    run, config = chain.run, config.copy()
    config.folder = str(run.folder)  # where loggers write
    pl.seed_everything(config.seed, verbose=False)
    precision = build_precision(str(config.trainer.precision), config.trainer.accelerator)
    recording = Recording(draws_on_device=bool(config.random_weights)) if _is_deferred(config) else None
    model, groups, inherited = _prepare_model(config, chain, precision, recording)
    data = _build_data(config, model, run, notices, is_resumed=checkpoint is not None)
    objective = _build_objective(config, model, groups, count_steps(config, data))
    objective.recording = recording
    counter = SampleCounter(run.folder / "skipped.jsonl", data.max_skipped)
    throughput = Throughput(counter)
    ledger = Ledger(run.folder, str(config.trainer.precision), throughput)
    bad_loss = BadLossPolicy(run.folder, counter, config.on_bad_loss, BAD_LOSS_CURE, config.spike_factor)
    write = _build_writer(config, run, objective, inherited)
    generation = _build_generation_metrics(config, data)
    chosen = build_all(config.callback)
    selection = build_selection(config, data, generation, chosen, run.folder / "best", write)
    interruption, saver = _build_savers(config, run, data, selection)
    weights = FusionWeights(model.all_fusions.values(), data.train_samples.planned.tasks.names)
    callbacks = [ledger, counter, throughput, bad_loss, generation, weights]
    if config.profile:
        callbacks.append(StepProfile(run.folder / "profile", ledger.clock))
    # the selection comes before averages, which put the parameters back at the end of a validation
    callbacks += [selection, *chosen, interruption, saver, build_progress_bar(is_rich=is_rich)]
    metrics = MetricsTable(run.folder / "metrics.csv", resume_at=checkpoint_step(checkpoint) if checkpoint else 0)
    if checkpoint is not None:
        _warn_of_interrupted_validation(config, data, checkpoint_step(checkpoint), metrics)
    trainer = _build_trainer(config, precision, saver.background, callbacks, metrics)
    return Stage(
        name=config.name,
        run=run,
        command=chain.command,
        objective=objective,
        data=data,
        trainer=trainer,
        checkpoint=checkpoint,
        throughput=throughput,
        ledger=ledger,
        counter=counter,
        bad_loss=bad_loss,
        select=config.select,
        selection=selection,
        has_validation=has_validation(config, data),
        validate_first=config.validate_first,
        write_weights=write,
        next_command=_find_next_command(config, data),
    )


def _prepare_model(
    config: DictConfig, chain: Chain, precision: Any, recording: Recording | None
) -> tuple[OmniModel, list[Group], set[str]]:
    """Return the model in the dtypes of its training, its trainable parameters, and the names of the loaded ones."""
    model, inherited = build_initial_model(config, chain, recording)
    groups = set_trainable(model, read_trainable(config))
    precision.convert_module(model)  # before a checkpoint is loaded: Lightning casts after it
    if recording is not None and config.data.get("features"):
        materialize(model, recording, torch.device("cpu"), frozen_encoders(model))  # its keys depend on their weights
    return model, groups, inherited


def _find_next_command(config: DictConfig, data: OmniData) -> str:
    planned = data.val_samples.planned or data.train_samples.planned
    return build_next_command(config, find_record(planned, config.validation.metrics))


def _build_objective(config: DictConfig, model: OmniModel, groups: Sequence[Group], total_steps: int) -> Objective:
    optimizer, scheduler = build(config.optimizer), build(config.scheduler)
    objective: Objective = build(config.objective)(
        model, groups, optimizer=optimizer, scheduler=scheduler, total_steps=total_steps
    )
    return objective


def _build_writer(config: DictConfig, run: Run, objective: Objective, inherited: set[str]) -> Callable[[Path], None]:
    """Return a function that writes all weights of the chain to a file."""
    metadata = {"experiment": str(config.name), "digest": run.digest}
    return partial(write_weights, objective=objective, names=objective.trainable_names | inherited, metadata=metadata)


def _build_data(config: DictConfig, model: OmniModel, run: Run, notices: Notices, *, is_resumed: bool) -> OmniData:
    """Build the data and plan its samples; a resumed run excludes those that it excluded at its start."""
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template, model.frozen_encoders)
    data.freeze(run.folder / "excluded.jsonl", notices, is_resumed=is_resumed)
    data.check_lengths()
    log_samples(data.train_samples)
    for line in data.describe_tasks():
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


def _build_option(name: str, node: Any) -> Any:
    try:
        return build(node)
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, ModuleNotFoundError):
            raise ValueError(f"{name}: {cause}") from error
        raise


def _is_deferred(config: DictConfig) -> bool:
    """Return true if parameters get memory only when the devices are known: where they are sharded, and on GPUs."""
    return config.trainer.strategy == "fsdp2" or (config.trainer.accelerator != "cpu" and torch.cuda.is_available())


def build_initial_model(
    config: DictConfig, chain: Chain, recording: Recording | None = None
) -> tuple[OmniModel, set[str]]:
    """Return the model with the weights of ``init_from`` or ``base``, and the names of the loaded parameters.

    Args:
        config: of the stage.
        chain: the run with its parents.
        recording: gets the values of the parameters, which stay without memory; ``None``: they are on the CPU.
    """
    entries = list(zip(config.init_from, chain.parents, strict=True))
    if config.base is None:
        model, inherited = _build_recorded(config.model, recording), set[str]()
    else:
        entry, parent = entries.pop(0)
        model, inherited = build_with_weights(
            config.model, parent.run.weights, entry.without, allow_new=True, recording=recording
        )
        log.info("base %s: %d tensors", config.base, len(inherited))
    for entry, parent in entries:
        report = load_weights(model, parent.run.weights, entry.get("only", "*"), recording=recording)
        log.info("init_from %s: %s", entry.get("run") or entry.folder, report)
        inherited.update(report.loaded)
    return model, inherited


def _build_recorded(config: DictConfig, recording: Recording | None) -> OmniModel:
    if recording is None:
        model: OmniModel = build(config)
        return model
    with recording:
        model = build(config)
    recording.finish(model)
    return model


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


def _build_generation_metrics(config: DictConfig, data: OmniData) -> GenerationMetrics:
    options: Any = OmegaConf.to_container(config.validation, resolve=True)
    metrics = {}
    if options.pop("metrics_from_options"):
        metrics = build_option_metrics(entry for _, entry in data.read_entries("val"))
    metrics |= {task: build(metric) for task, metric in options.pop("metrics").items()}
    return GenerationMetrics(data, metrics, **options)


def has_validation(config: DictConfig, data: OmniData) -> bool:
    """Return true if a run has validation data and uses it."""
    return bool(config.trainer.limit_val_batches and len(data.val_samples))


def validates_after(config: DictConfig, data: OmniData, step: int) -> bool:
    """Return true if a validation follows an optimizer step."""
    every: int = config.val_every or data.steps_per_epoch * config.trainer.check_val_every_n_epoch
    return has_validation(config, data) and step % every == 0


def _warn_of_interrupted_validation(config: DictConfig, data: OmniData, step: int, metrics: MetricsTable) -> None:
    """Warn where the row of the checkpoint's validation is missing; the one at the end of the run is repeated."""
    is_last = step >= count_steps(config, data)
    if not is_last and validates_after(config, data, step) and not metrics.has_validation(step):
        log.warning("the validation after step %d was interrupted: it is not repeated, and has no scores", step)


def build_selection(
    config: DictConfig,
    data: OmniData,
    generation: GenerationMetrics,
    callbacks: Sequence[Any],
    folder: Path,
    write: Callable[[Path], None],
) -> Selection:
    """Return the selection of a run; without ``monitor``, by the headline score of the answers, or by the loss.

    Args:
        config: of the stage.
        data: of the run.
        generation: names the scores of the answers.
        callbacks: of the config; one with ``list_scores`` names the scores that it logs with every validation.
        folder: of the best weights.
        write: writes the weights of the moment.

    Raises:
        ValueError: the run never validates, or has no such metric.
    """
    if config.select == "last" and config.patience is None:
        if config.monitor is not None:
            log.warning("monitor=%s selects nothing: set select=best, or patience.", config.monitor)
        return Selection(None, folder, write)
    key = "select=best" if config.select == "best" else f"patience={config.patience}"
    if not has_validation(config, data):
        raise ValueError(
            f"{key}: this run never validates; give data.val_records, or choose select=last patience=null."
        )
    scores = [*generation.list_scores(), "val/loss"]
    monitor = config.monitor or scores[0]
    known = [callback for callback in callbacks if hasattr(callback, "list_scores")]
    for callback in known:
        scores += callback.list_scores()
    if monitor not in scores and len(known) == len(callbacks):  # others may log metrics of their own
        raise unknown_monitor(monitor, scores)
    num_best = config.save_top_k if config.select == "best" else 0
    return Selection(monitor, folder, write, num_best, config.patience, config.trainer.checkpoint_keep)


def _build_savers(config: DictConfig, run: Run, data: OmniData, selection: Selection) -> tuple[Interruption, Saver]:
    def is_deferred(step: int) -> bool:
        return selection.monitor is not None and validates_after(config, data, step)

    background = Background(config.trainer.checkpoint_async)
    saver = Saver(run, config.trainer.checkpoint_every, is_deferred, background)
    return Interruption(saver), saver


def _build_trainer(
    config: DictConfig,
    precision: Any,
    background: Background,
    callbacks: Sequence[Any],
    metrics: MetricsTable,
) -> pl.Trainer:
    options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    num_kept = options.pop("checkpoint_keep")
    sharding = {key: options.pop(key) for key in ("reduce_each", "replicate")}
    del options["checkpoint_every"], options["checkpoint_async"], options["precision"]
    plugins = [precision, *select_environment()]
    if options["strategy"] == "fsdp2":
        num_ranks = count_ranks(options["devices"], options["num_nodes"])
        options["strategy"] = build_sharded_strategy(num_kept, background, num_ranks, **sharding)
    else:
        check_not_sharded(options["strategy"], **sharding)
        plugins.append(CheckpointFolders(num_kept, background))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    trainer = pl.Trainer(
        plugins=plugins,
        default_root_dir=config.folder,  # where Lightning looks for checkpoints of SLURM: in no other run's folder
        callbacks=list(callbacks),
        logger=[metrics, *build_all(config.logger)],
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    metrics.trainer = trainer
    if config.val_every is not None:  # Lightning counts batches, over all epochs if check_val_every_n_epoch is None
        trainer.val_check_interval = config.val_every
        trainer.check_val_every_n_epoch = None
    return trainer
