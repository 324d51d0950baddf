"""The state of the data in a checkpoint: which samples a run goes on with."""

import hashlib
from typing import Any

from omnihuman.data.ceiling import summarize_reasons
from omnihuman.data.dataset import Samples
from omnihuman.data.exclusion import Exclusions


def digest_samples(samples: Samples) -> str:
    """Return a hash of all samples and their lengths: batches and their order follow from it."""
    lines = [f"{planned.record.id}\t{planned.length}\t{planned.targets}" for planned in samples.planned]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def build_state(samples: Samples, exclusions: Exclusions) -> dict[str, Any]:
    """Return the state: hashes of the samples and of the frozen list of the excluded ones."""
    return {"samples": digest_samples(samples), "num_samples": len(samples), "exclusions": exclusions.digest}


def check_state(state: dict[str, Any], samples: Samples, exclusions: Exclusions) -> None:
    """Check that the samples are those of a checkpoint.

    Raises:
        ValueError: they differ, so that some would be trained twice and others never.
    """
    if state["samples"] == digest_samples(samples):
        return
    cause = "data files, or the files that they name, have changed"
    if state["exclusions"] != exclusions.digest:
        cause = "the list of excluded samples in the run's folder has changed"
    raise ValueError(
        f"the checkpoint belongs to {state['num_samples']} other samples than the {len(samples)} of this run: {cause} "
        f"(skipped now: {summarize_reasons(samples.skipped) or 'none'}). Restore them, or add overwrite=true."
    )
