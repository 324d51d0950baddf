"""Benchmarks during training: the model is asked their questions as ``evaluate`` asks them."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from omnihuman.benchmark.base import Benchmark, Prediction, Question
from omnihuman.build import build, compose_part
from omnihuman.config_files import list_choices
from omnihuman.evaluation.answering import EvalOptions, append_predictions, ask_questions
from omnihuman.evaluation.control import select_view
from omnihuman.inference.answerer import Answerer
from omnihuman.metric.score import Score
from omnihuman.modality import View
from omnihuman.pl import pl
from omnihuman.training.callbacks import Throughput, gather_over_ranks

log = logging.getLogger(__name__)

KEY = "callback.benchmarks"
ENTRY_KEYS = ("benchmark", "limit", "view")
"""Keys of an entry of ``ask`` that are no options of its benchmark."""


@dataclass(frozen=True)
class Entry:
    """A benchmark with the questions that are asked.

    Attributes:
        name: in the names of its scores, ``bench/<name>/<score>``.
        benchmark: parses and scores the answers.
        questions: of it, up to the limit.
        view: that the user has chosen, ``None`` for the benchmark's.
    """

    name: str
    benchmark: Benchmark
    questions: Sequence[Question]
    view: str | None


class Benchmarks(pl.Callback):
    """Asks the questions of benchmarks during training, and logs the scores ``bench/<name>/<score>``.

    The answers are greedy. Values have the scale of ``evaluate`` (percent for WAR, UAR and accuracy); scores of single
    groups of a benchmark (``war/fold 1``) are left out. Modes of the modules and random states stay as they were, so
    that a training has the same losses with and without this callback.

    Args:
        ask: name -> the benchmark's options, ``limit`` (number of questions, from the first), ``view``, and
            ``benchmark`` where the name is not that of the benchmark.
        every: optimizer steps; also at the end of the training. ``None`` for every validation, also that of the
            untrained model, or for the end alone where a run has none.
        batch_size: maximum number of questions in a batch.
        max_tokens: of a batch, padding included.
        num_workers: decoding processes.
        folder: of the run, where the answers are written to: ``benchmarks/<name>/step=20.jsonl``; ``None`` for nowhere.

    Raises:
        ValueError: an entry is invalid, or files of its benchmark are; the message names the entry.
    """

    def __init__(
        self,
        ask: Mapping[str, Any],
        every: int | None = None,
        batch_size: int = 16,
        max_tokens: int = 65536,
        num_workers: int = 0,
        folder: str | None = None,
    ) -> None:
        if not isinstance(ask, Mapping) or not ask:
            raise ValueError(f"{KEY}.ask={ask}: expected benchmarks with their options: {{dfew: {{root: DFEW}}}}.")
        if every is not None and every < 1:
            raise ValueError(f"{KEY}.every={every}: expected a number of optimizer steps, or null.")
        self.every, self.batch_size, self.max_tokens, self.num_workers = every, batch_size, max_tokens, num_workers
        self.folder = None if folder is None else Path(folder, "benchmarks")
        self.entries = [build_entry(str(name), options) for name, options in ask.items()]
        self._last_step: int | None = None

    def list_scores(self) -> list[str]:
        """Return the names of the scores that a validation logs; none where ``every`` decides, not the validations."""
        if self.every is not None:
            return []
        names = []
        for entry in self.entries:
            unanswered = [_leave_unanswered(entry.benchmark, question) for question in entry.questions]
            names += [f"bench/{entry.name}/{score.name}" for score in select_scores(entry.benchmark.scores(unanswered))]
        return names

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that the model reads something of every view.

        Raises:
            ValueError: it does not, or the average of ``callback=ema`` is nowhere asked.
        """
        is_averaged = any(isinstance(callback, pl.callbacks.WeightAveraging) for callback in trainer.callbacks)
        if is_averaged and not self._follows_validations(trainer):
            raise ValueError(
                f"{KEY} asks the average of callback=ema in validations alone: set {KEY}.every=null, and give "
                "data.val_records; or leave callback=ema out."
            )
        with unchanged(pl_module.model):
            view = Answerer(pl_module.model, trainer.datamodule.data).view
        for entry in self.entries:
            self._select_view(entry, view)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.every is None and not trainer.sanity_checking:
            for name, value in self._ask_all(trainer, pl_module).items():
                pl_module.log(name, value, batch_size=1)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.every is not None and trainer.global_step % self.every == 0:
            self._ask_and_log(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._follows_validations(trainer):
            self._ask_and_log(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_step = state_dict["last_step"]

    def _follows_validations(self, trainer: Any) -> bool:
        has_validation = trainer.limit_val_batches and len(trainer.datamodule.data.val_samples)
        return self.every is None and bool(has_validation)

    def _ask_and_log(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores of an optimizer step, once: a step may have several micro-batches, and may be the last."""
        if trainer.global_step in (0, self._last_step):
            return
        scores = self._ask_all(trainer, pl_module)
        for logger in trainer.loggers:
            logger.log_metrics(scores, step=trainer.global_step)
        for callback in trainer.callbacks:
            if isinstance(callback, Throughput):
                callback.ignore_time()

    def _ask_all(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        """Return the finite scores of all benchmarks; every rank must call it, and gets the same."""
        self._last_step = trainer.global_step
        values = {}
        with unchanged(pl_module.model):
            answerer = Answerer(pl_module.model, trainer.datamodule.data, is_sharded=pl_module.is_sharded)
            for entry in self.entries:
                predictions = self._ask(entry, answerer, trainer)
                self._write(entry.name, predictions, trainer)
                for score in select_scores(entry.benchmark.scores(predictions)):
                    if math.isfinite(score.value):
                        values[f"bench/{entry.name}/{score.name}"] = float(score.value)
        return values

    def _ask(self, entry: Entry, answerer: Answerer, trainer: Any) -> list[Prediction]:
        """Return the predictions of all ranks in the order of the questions."""
        benchmark = entry.benchmark
        options = EvalOptions(
            self._select_view(entry, answerer.view),
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            max_new_tokens=benchmark.max_new_tokens,
            log_probs=benchmark.log_probs,
            num_workers=self.num_workers,
        )
        # the ranks of a sharded model generate in step, so each of them answers all questions; others share them
        share = (0, 1) if answerer.is_sharded else (trainer.global_rank, trainer.world_size)
        by_id = {}
        for part in gather_over_ranks(ask_questions(answerer, benchmark, entry.questions, options, share)):
            by_id.update({prediction.id: prediction for prediction in part})
        return [by_id[question.id] for question in entry.questions]

    def _write(self, name: str, predictions: Sequence[Prediction], trainer: Any) -> None:
        failed = [prediction for prediction in predictions if prediction.error is not None]
        if failed:
            count = f"{len(failed)} of {len(predictions)}"
            log.warning("bench/%s: %s questions count as wrong, the first: %s", name, count, failed[0].error)
        if self.folder is not None and trainer.is_global_zero:
            file = self.folder / name / f"step={trainer.global_step}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)  # of a training that was interrupted
            append_predictions(file, predictions)

    @staticmethod
    def _select_view(entry: Entry, model_view: View) -> View:
        try:
            return select_view(entry.benchmark, model_view, entry.view)
        except ValueError as error:
            raise ValueError(f"{KEY}.ask.{entry.name}: {error}") from error


def build_entry(name: str, options: Any) -> Entry:
    """Build the benchmark of an entry of ``ask`` and read its questions.

    Raises:
        ValueError: benchmark, option, limit, view or files are invalid; the message names the entry.
    """
    place = f"{KEY}.ask.{name}"
    if not isinstance(options, Mapping | None) or "/" in name:
        raise ValueError(f"{place}={options}: expected a name without / and its options: {{dfew: {{root: DFEW}}}}.")
    values = dict(options or {})
    preset, limit, view = (values.pop(key, None) for key in ENTRY_KEYS)
    preset, names = preset or name, list_choices("benchmark")
    if preset not in names:
        raise ValueError(f"{place}: there is no benchmark {preset}; choose from {', '.join(names)}.")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"{place}.limit={limit}: expected a positive number of questions; leave it out for all.")
    plain: Any = OmegaConf.to_container(compose_part("benchmark", preset))
    known = [key for key in plain if key != "_target_"]
    if unknown := sorted(values.keys() - set(known)):
        raise ValueError(f"{place}: unknown option {', '.join(unknown)}; {preset} has {', '.join(known)}.")
    try:
        if view is not None:
            View.parse(view)
        benchmark: Benchmark = build(plain | values)
        questions = benchmark.questions()[:limit]
    except (ValueError, OSError) as error:
        raise ValueError(f"{place}: {error}") from error
    return Entry(name, benchmark, questions, view)


def select_scores(scores: Sequence[Score]) -> list[Score]:
    """Return the scores without those of single groups: ``war/fold 1`` is one, as there is a ``war``."""
    names = {score.name for score in scores}
    return [score for score in scores if score.name.rpartition("/")[0] not in names]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Compute without gradients, and leave random states and the mode of every module as they were."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), pl.utilities.seed.isolate_rng():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _leave_unanswered(benchmark: Benchmark, question: Question) -> Prediction:
    return Prediction(
        benchmark.name,
        question.id,
        question.group,
        "",
        question.reference,
        answer=None,
        options=question.options,
        meta=question.meta,
        error="not asked",
    )
