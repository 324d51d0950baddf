"""Checkpoints of a training: when they are written, by one process or by all, and what resumes from them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from omnihuman.pl import pl
from omnihuman.training.callbacks import gather_over_ranks
from omnihuman.training.checkpoint import RUN, SHARDS, Background, open_partial
from omnihuman.training.runs import Run
from omnihuman.training.sharded import read_shards
from omnihuman.training.state import complete, encode, explain_failure, read_state


class Saver(pl.callbacks.Checkpoint):
    """Writes a checkpoint every few optimizer steps.

    Where a validation follows the same step and decides what is selected, the checkpoint is written after it: Lightning
    does not repeat a validation that was interrupted.

    Beside Lightning's state, which counts optimizer steps, a checkpoint holds the digest of its run and the random
    generators of all ranks.

    Args:
        run: whose checkpoints they are.
        every: optimizer steps.
        is_deferred: optimizer step -> a validation that decides something follows it.
        background: in which they are written.
    """

    def __init__(self, run: Run, every: int, is_deferred: Callable[[int], bool], background: Background) -> None:
        self.folder, self.digest = run.checkpoints, run.digest
        self.every, self.is_deferred, self.background = every, is_deferred, background
        self.last_step = 0

    def save(self, trainer: Any) -> None:
        """Write a checkpoint of this moment, unless there is one already; every rank must call it."""
        if self.last_step != trainer.global_step:
            self.last_step = trainer.global_step
            trainer.save_checkpoint(self.folder / f"step={self.last_step}.ckpt")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write a checkpoint if it is due and no validation comes before it."""
        if self._is_due(trainer.global_step) and not self.is_deferred(trainer.global_step):
            self.save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the checkpoint that has waited for the validation."""
        step = trainer.global_step
        if trainer.state.fn == "fit" and self._is_due(step) and self.is_deferred(step):
            self.save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Wait for the last checkpoint."""
        self.background.wait()

    def _is_due(self, step: int) -> bool:
        return step > 0 and step % self.every == 0

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.save()  # rows of steps before a checkpoint are not logged again
        checkpoint[RUN] = self.digest
        checkpoint["rng"] = gather_over_ranks(_read_generators(pl_module.device))

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.last_step = checkpoint["global_step"]
        rank, states = trainer.global_rank, checkpoint["rng"]
        if len(states) == trainer.world_size:
            _set_generators(states[rank], pl_module.device)
        else:  # one rank for another makes no sense: numbers that no other rank and no other step has
            torch.manual_seed(torch.initial_seed() + (self.last_step + 1) * trainer.world_size + rank)


def _read_generators(device: torch.device) -> dict[str, Any]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


class CheckpointFolders(pl.plugins.CheckpointIO):  # type: ignore[misc, name-defined]
    """Writes and reads the checkpoints of a run whose every rank has the whole model.

    Args:
        num_kept: checkpoints that stay.
        background: in which they are written.
    """

    def __init__(self, num_kept: int, background: Background) -> None:
        self.num_kept, self.background = num_kept, background

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Copy the state, and write it."""
        self.background.wait()
        tensors: dict[str, torch.Tensor] = {}
        plain = encode(checkpoint, tensors)
        self.background.submit(partial(self._write, Path(path), plain, tensors))

    def _write(self, folder: Path, plain: Any, tensors: Mapping[str, torch.Tensor]) -> None:
        with explain_failure(folder):
            complete(open_partial(folder), folder, plain, tensors, self.num_kept)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Return the state of a checkpoint, also of one that a sharded training has written.

        Raises:
            ValueError: it cannot be read.
        """
        folder = Path(path)
        return read_shards(folder) if (folder / SHARDS).is_dir() else read_state(folder)

    def remove_checkpoint(self, path: Any) -> None:
        """Do nothing: old checkpoints are deleted when a new one is complete."""

    def teardown(self) -> None:
        """Wait for the last checkpoint."""
        self.background.wait()
