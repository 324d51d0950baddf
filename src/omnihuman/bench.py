"""Measure the speed of one part, beside its reference: ``omnihuman bench input|step|pack|plan|startup|gpu``."""

import json
import logging
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.build import compose_config
from omnihuman.overrides import select_keys
from omnihuman.verb import verb

MODES = ("input", "step", "pack", "plan", "startup", "gpu")
EXPERIMENT = "+experiment=humanomni_stage3"
"""The experiment that is measured if none is typed."""


@verb("bench", word="mode")
def main(config: DictConfig) -> None:
    """Print what was measured with, and a table for every comparison.

    Raises:
        ValueError: the mode or a number is invalid, or what it needs is not there.
    """
    from hydra.core.hydra_config import HydraConfig

    if config.mode not in MODES:
        raise ValueError(f"mode={config.mode}: choose from {', '.join(MODES)}, such as omnihuman bench step.")
    for key in ("repeats", "threads"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise ValueError(f"{key}={config[key]}: expected a whole number of at least 1.")
    overrides = list(HydraConfig.get().overrides.task)
    if not select_keys(overrides, "experiment"):
        overrides.append(EXPERIMENT)
    measure(overrides)


def measure(overrides: list[str]) -> None:
    """Run the mode of a command line."""
    import torch
    import transformers

    from omnihuman.benching.table import describe_machine

    config = compose_config(overrides, "bench")
    logging.getLogger().setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(config.threads)
    machine = describe_machine()
    print(", ".join(f"{key} {value}" for key, value in machine.items()), end="\n\n", flush=True)
    results = []
    for table in import_module(f"omnihuman.benching.{config.mode}").measure(config, overrides):
        print(table.format(), flush=True)
        results.append(table.to_json())
    if config.json is not None:
        Path(config.json).expanduser().write_text(json.dumps({"machine": machine, "tables": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
