"""Callback that counts the gaps of audio for which a file has no packets, and which are silent."""

from typing import Any

from omnihuman.pl import pl
from omnihuman.training.callbacks import gather_over_ranks
from omnihuman.types import Batch


class GapCounter(pl.Callback):
    """Counts trained samples whose audio has gaps, the gaps, and their seconds; ``audio_gaps`` of the batch's meta."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {"samples": 0, "gaps": 0, "seconds": 0.0}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        for meta in batch.meta:
            if gaps := meta.get("audio_gaps"):
                self.counts["samples"] += 1
                self.counts["gaps"] += len(gaps)
                self.counts["seconds"] += sum(gaps)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict)

    def totals(self) -> dict[str, float]:
        """Return the counts over all ranks; every rank must call it."""
        totals = dict.fromkeys(self.counts, 0.0)
        for counts in gather_over_ranks(self.counts):
            for name, count in counts.items():
                totals[name] += count
        return totals
