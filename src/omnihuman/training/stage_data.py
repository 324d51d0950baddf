"""Data of a stage: its own files where the data names those of several experiments."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

ENTRY_KEYS = frozenset(("path", "source", "weight"))
"""Keys of one entry of a mixture; any other mapping names the files of several experiments."""

STAGE_KEYS = ("records", "val_records")
"""Options of the data that may be a mapping from an experiment to its files."""


def select_stage_data(config: DictConfig) -> DictConfig:
    """Return the config of a stage with its own files, where the data names the files of several experiments.

    Args:
        config: composed; it stays as it is. Without such a mapping, it is returned itself.

    Raises:
        ValueError: the mapping has no files for the experiment.
    """
    chosen = dict[str, Any]()
    for key in STAGE_KEYS:
        files = OmegaConf.select(config, f"data.{key}", throw_on_missing=False)
        if isinstance(files, DictConfig) and "_target_" not in files and not set(files) <= ENTRY_KEYS:
            chosen[key] = _select_files(files, config.name, key)
    if not chosen:
        return config
    config = config.copy()
    for key, files in chosen.items():
        OmegaConf.update(config, f"data.{key}", files, merge=False, force_add=True)
    return config


def _select_files(files: Mapping[Any, Any], name: str | None, key: str) -> Any:
    if name in files:
        return files[name]
    if key == "val_records":  # a stage need not be validated
        return None
    known = ", ".join(map(str, files))
    if name is None:
        raise ValueError(f"data.{key} names the files of {known}: add +experiment=<one of them>.")
    raise ValueError(f"data.{key} has no files for {name}, but for {known}: correct a name, or add {name}: <file>.")
