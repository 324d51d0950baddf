"""Trained and skipped samples of a run, counted over all ranks, with a ceiling."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from omnihuman.data.ceiling import MIN_SKIPPED, check_skipped, summarize_reasons
from omnihuman.data.resume import digest_samples
from omnihuman.data.tasks import TASK_NOT_LISTED
from omnihuman.pl import pl
from omnihuman.training.callbacks import gather_over_ranks
from omnihuman.types import Batch, Batches

log = logging.getLogger(__name__)

WINDOW = 200
"""Samples after which the share of skipped ones is compared with the ceiling, and counted anew."""


BAD_LOSS = "bad_loss"
"""Reason of the samples of a step that was not taken; its policy has a ceiling of its own."""


NO_GAPS = {"samples": 0.0, "gaps": 0.0, "seconds": 0.0}
"""Samples whose audio has gaps, times for which a file has no packets and which are silent; the gaps; their seconds."""


@dataclass
class _Sums:
    """Samples, descriptions of skipped ones, tokens and gaps of audio of all ranks since the sums before."""

    used: int = 0
    skipped: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0
    gaps: dict[str, float] = field(default_factory=lambda: dict(NO_GAPS))


class _Tally:
    """Used samples of this rank and descriptions of its skipped ones, since the last call of ``gather``."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.num_used = self.num_tokens = 0
        self.skipped: list[Mapping[str, Any]] = []
        self.gaps = dict(NO_GAPS)

    def add(self, step: Batches) -> None:
        for batch in step:
            self.num_used += len(batch.meta)
            self.num_tokens += batch.input_ids.numel()
            self.skipped += batch.skipped
            self._add_gaps(batch)

    def _add_gaps(self, batch: Batch) -> None:
        for meta in batch.meta:
            if gaps := meta.get("audio_gaps"):
                self.gaps["samples"] += 1
                self.gaps["gaps"] += len(gaps)
                self.gaps["seconds"] += sum(gaps)

    def gather(self, trainer: Any, device: torch.device) -> _Sums:
        """Return the sums over all ranks; descriptions are sent only if there are any."""
        counts = [self.num_used, self.num_tokens, len(self.skipped), *self.gaps.values()]
        local = torch.tensor(counts, dtype=torch.float64, device=device)
        num_used, num_tokens, num_skipped, *gaps = trainer.strategy.reduce(local, reduce_op="sum").tolist()
        sums = _Sums(int(num_used), [], int(num_tokens), dict(zip(NO_GAPS, gaps, strict=True)))
        if num_skipped:
            for entries in gather_over_ranks(self.skipped):
                sums.skipped += entries
        self._clear()
        return sums


class SampleCounter(pl.Callback):
    """Counts the trained and the skipped samples of all ranks; together they are the planned ones.

    Every skipped sample is appended to ``file`` at once, as a line of JSON. A disk that goes away, or data that cannot
    be decoded, ends the training on all ranks at the same step.

    Args:
        file: of the skipped samples.
        max_skipped: share of the samples that may be skipped, see ``check_skipped``.

    Attributes:
        num_trained: samples.
        skipped: samples by reason.
        val_skipped: skipped samples of all validations, by reason.
        audio_gaps: of the trained samples, see ``NO_GAPS``.
        step_samples: trained samples of the last optimizer step, over all ranks ...
        step_tokens: ... and their tokens.
    """

    def __init__(self, file: Path, max_skipped: float = 1.0) -> None:
        self.file, self.max_skipped = file, max_skipped
        self.num_trained = self.step_samples = self.step_tokens = 0
        self.skipped: Counter[str] = Counter()
        self.val_skipped: Counter[str] = Counter()
        self.audio_gaps = dict(NO_GAPS)
        self._train, self._val = _Tally(), _Tally()
        self._window_trained, self._window_skipped = 0, list[Mapping[str, Any]]()
        self._streak = 0  # skipped samples since one was trained

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "validate":
            self._drop_lines(trainer)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that all ranks have the same samples.

        Raises:
            ValueError: they have not, as where the disk of one node has other files.
        """
        samples = trainer.datamodule.data.train_samples
        states = gather_over_ranks((digest_samples(samples), len(samples), summarize_reasons(samples.skipped)))
        for rank, state in enumerate(states):
            if state[0] != states[0][0]:
                raise ValueError(
                    f"rank {rank} has other samples than rank 0: {state[1]} (skipped: {state[2] or 'none'}), "
                    f"not {states[0][1]} (skipped: {states[0][2] or 'none'}). All nodes need the same files below "
                    "data.root; start again."
                )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Drop lines that are newer than the checkpoint, whose state is not there before under a sharded strategy."""
        self._drop_lines(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batches, batch_idx: int) -> None:
        self._train.add(batch)
        self._add_step(trainer, pl_module)

    def reject(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Count samples of this rank as skipped, though their step is at its end; every rank must call it.

        Args:
            samples: descriptions with the reason ``BAD_LOSS``, of all samples of the step.
        """
        self._train.num_used -= len(samples)
        self._train.skipped += samples

    def _add_step(self, trainer: Any, pl_module: Any) -> None:
        sums = self._train.gather(trainer, pl_module.device)
        for name, count in sums.gaps.items():
            self.audio_gaps[name] += count
        self.step_samples, self.step_tokens = sums.used, sums.tokens
        self.num_trained += sums.used
        self._add(sums.skipped, self.skipped, trainer.is_global_zero)
        bad_samples = [sample for sample in sums.skipped if sample["reason"] != BAD_LOSS]
        self._window_trained += sums.used
        self._window_skipped += bad_samples
        self._streak = 0 if sums.used else self._streak + len(bad_samples)
        if self._streak >= MIN_SKIPPED:  # a disk that is away, noticed before the window or a checkpoint is full of it
            self._window_trained = 0
            self._window_skipped = self._window_skipped[-self._streak :]
        if self._window_trained + len(self._window_skipped) >= WINDOW or self._streak >= MIN_SKIPPED:
            cause, place = (
                summarize_reasons(self._window_skipped),
                f"the last samples before step {trainer.global_step}",
            )
            check_skipped(self._window_trained, len(self._window_skipped), self.max_skipped, place, cause)
            self._window_trained, self._window_skipped = 0, []

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batches, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._val.add(batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        sums = self._val.gather(trainer, pl_module.device)
        if sums.skipped:
            entries = [{**entry, "split": "val"} for entry in sums.skipped]
            self._add(entries, self.val_skipped, trainer.is_global_zero)
            cause = summarize_reasons(sums.skipped)
            log.warning("validation without %d samples: %s", len(sums.skipped), cause)
            check_skipped(sums.used, len(sums.skipped), self.max_skipped, "validation", cause, is_final=True)

    def add_unplanned(self, samples: Sequence[Mapping[str, Any]], is_main: bool) -> None:
        """Count the samples that were skipped before the training, at its end.

        Args:
            samples: descriptions, the same on all ranks.
            is_main: this process writes the file.

        Raises:
            TooManySkippedError: too many of all samples of the run were skipped.
        """
        self._add(samples, self.skipped, is_main)
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
        cause = f"{reasons}, all in {self.file}"
        num_skipped = sum(self.skipped.values()) - self.skipped[TASK_NOT_LISTED]
        if self.num_trained:
            num_skipped -= self.skipped[BAD_LOSS]
        check_skipped(self.num_trained, num_skipped, self.max_skipped, "the run", cause, is_final=True)

    def _add(self, samples: Sequence[Mapping[str, Any]], counts: Counter[str], is_main: bool) -> None:
        counts.update(str(sample["reason"]) for sample in samples)
        if samples and is_main:
            with self.file.open("a") as lines:
                lines.writelines(json.dumps(dict(sample)) + "\n" for sample in samples)

    def _drop_lines(self, trainer: Any) -> None:
        """Drop lines of an earlier start of the run that are newer than the checkpoint."""
        if trainer.is_global_zero and self.file.is_file():
            lines = self.file.read_text().splitlines(keepends=True)
            num_counted = sum(self.skipped.values()) + sum(self.val_skipped.values())
            self.file.write_text("".join(lines[:num_counted]))

    def state_dict(self) -> dict[str, Any]:
        return {
            "trained": self.num_trained,
            "skipped": dict(self.skipped),
            "val_skipped": dict(self.val_skipped),
            "audio_gaps": dict(self.audio_gaps),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_trained = state_dict["trained"]
        self.skipped = Counter(state_dict["skipped"])
        self.val_skipped = Counter(state_dict["val_skipped"])
        self.audio_gaps = dict(state_dict["audio_gaps"])
