"""The share of a language model's blocks that is recomputed, chosen by the forecast of memory."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.config_files import config_dir
from omnihuman.cost.forecast import Forecaster

USABLE = 0.9
"""Share of a device's memory that a forecast may reach: the rest is for fragments, and for kernels' workspaces."""

STEPS = 8
"""Shares are multiples of 1 / STEPS."""

ASSUMPTIONS = ("audio_seconds", "text_tokens", "answer_tokens", "tflops", "num_samples")
"""Keys of ``conf/plan.yaml`` that describe the sample behind the forecast; the memory depends on the first three."""


def choose_share(
    config: DictConfig, num_bytes: float, num_devices: int = 1, forecaster: Forecaster | None = None
) -> float:
    """Return the least share with which the memory of a training is below 90 % of a device's.

    Args:
        config: composed root config of a run.
        num_bytes: of memory on each device.
        num_devices: of the run.
        forecaster: that has costs of this config already.

    Raises:
        ValueError: the parts do not fit together, or a sample does not fit into a packed sequence.
    """
    forecaster = forecaster or Forecaster()
    stored, recomputed = (forecast_memory(forecaster, config, share, num_devices) for share in (0, 1))
    excess = sum(stored.values()) - USABLE * num_bytes
    if excess <= 0:
        return 0.0
    block = recomputed["recomputed block"]  # of any share above 0
    saved = sum(stored.values()) + block - sum(recomputed.values())
    steps = math.ceil((excess + block) / saved * STEPS) if saved > 0 else STEPS
    return min(steps, STEPS) / STEPS


def forecast_memory(
    forecaster: Forecaster, config: DictConfig, share: float, num_devices: int = 1
) -> Mapping[str, float]:
    """Return the bytes on a device by their use if a share of the blocks is recomputed."""
    assumptions: Any = OmegaConf.load(Path(config_dir()) / "plan.yaml")
    cell = config.copy()
    OmegaConf.set_struct(cell, False)
    for key in ASSUMPTIONS:
        cell[key] = assumptions[key]
    cell.devices = num_devices
    cell.model.llm.activation_checkpointing = share
    return forecaster(cell).memory
