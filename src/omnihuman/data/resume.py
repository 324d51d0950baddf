"""The state of the data in a checkpoint: which samples a run goes on with."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.data.ceiling import summarize_reasons
from omnihuman.data.dataset import Samples
from omnihuman.data.exclusion import Exclusions
from omnihuman.data.plan.planned import JoinedPlan, Plan
from omnihuman.data.plan.tables import PlanTable

NUM_SHOWN = 3
"""Ids that a message names of each kind of change."""


def digest_samples(samples: Samples) -> str:
    """Return a hash of all samples and their lengths: batches and their order follow from it."""
    return samples.planned.digest


def build_state(samples: Samples, exclusions: Exclusions) -> dict[str, Any]:
    """Return the state: hashes of the samples and of the frozen list of the excluded ones, and their tables."""
    plan = samples.planned
    parts = plan.parts if isinstance(plan, JoinedPlan) else [plan]
    tables = [str(part.folder.resolve()) for part in parts if isinstance(part, PlanTable)]
    state = {"samples": digest_samples(samples), "num_samples": len(samples), "exclusions": exclusions.digest}
    return state | {"tables": tables}


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
        f"the checkpoint belongs to {state['num_samples']} other samples than the {len(samples)} of this run: {cause}"
        f"{_describe_changes(state['tables'], samples.planned)} (skipped now: "
        f"{summarize_reasons(samples.skipped) or 'none'}). Restore them, or add overwrite=true."
    )


def _describe_changes(tables: Iterable[str], plan: Plan) -> str:
    """Return which samples differ from those in tables; nothing if the tables are gone."""
    try:
        parts = [PlanTable(Path(folder)) for folder in tables]
    except ValueError:
        return ""
    if not parts:
        return ""
    new, old = _list_sizes(plan), _list_sizes(JoinedPlan(parts))
    changes = {
        "new": [name for name in new if name not in old],
        "missing": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    texts = []
    for kind, names in changes.items():
        if names:
            more = ", ..." if len(names) > NUM_SHOWN else ""
            texts.append(f"{len(names)} {kind} ({', '.join(names[:NUM_SHOWN])}{more})")
    return f": {', '.join(texts)}" if texts else ": their order"


def _list_sizes(plan: Plan) -> dict[str, tuple[int, int]]:
    ids = plan.read_ids(np.arange(len(plan), dtype=np.int32))
    return dict(zip(ids, zip(plan.lengths.tolist(), plan.targets.tolist(), strict=True), strict=True))
