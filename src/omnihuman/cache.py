"""Show, fill and empty the cache of features of frozen encoders: ``omnihuman cache stat|warm|clear``."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.feature_store import FeatureStore

DAY = 24 * 3600
AGES = (1, 7, 30)
"""Days by which the use of features is told."""


@verb("cache", word="mode")
def main(config: DictConfig) -> None:
    """Print the size of the cache, encode the clips of a run, or remove features.

    Raises:
        ValueError: the mode is unknown, no folder is set, or a number is invalid.
    """
    modes: Mapping[str, Callable[[DictConfig], None]] = {"stat": print_size, "warm": warm, "clear": clear}
    if config.mode not in modes:
        raise ValueError(f"mode={config.mode}: choose from {', '.join(modes)}, such as omnihuman cache stat.")
    if config.data.features is None:
        raise ValueError("data.features=null: no cache; name its folder, such as data.features=runs/features.")
    modes[config.mode](config)


def open_store(config: DictConfig) -> "FeatureStore":
    """Return the store of a config."""
    from omnihuman.data.feature_store import FeatureStore

    return FeatureStore(Path(config.data.features).expanduser())


def print_size(config: DictConfig) -> None:
    """Print the number and the bytes of the features, and of those that were not used for some days."""
    entries = list(open_store(config).list_entries())
    limit = config.data.get("features_gb")
    bound = "no limit" if limit is None else f"at most {limit:g} GB"
    total = sum(entry.size for entry in entries)
    print(f"{config.data.features}: {len(entries):,} features, {total / 1e9:.3f} GB, {bound} (data.features_gb)")
    now = time.time()
    for days in AGES:
        old = [entry.size for entry in entries if entry.used < now - days * DAY]
        print(f"  not used for {days} days: {len(old):,} features, {sum(old) / 1e9:.3f} GB")


def clear(config: DictConfig) -> None:
    """Remove features, all or those that were not used for some days; other files in the folder stay.

    Raises:
        ValueError: the number of days is none.
    """
    days = config.unused_days
    if days is not None and (isinstance(days, bool) or not isinstance(days, int | float) or days < 0):
        raise ValueError(f"unused_days={days}: expected a number of days, or null for all features.")
    since = float("inf") if days is None else time.time() - days * DAY
    num_removed, num_bytes = open_store(config).remove(since)
    print(f"{config.data.features}: {num_removed:,} features removed, {num_bytes / 1e9:.3f} GB")


def warm(config: DictConfig) -> None:
    """Encode the clips of a run that the cache lacks, as the run would before its first step.

    Raises:
        ValueError: no experiment is selected.
    """
    from hydra.core.hydra_config import HydraConfig

    if config.name is None:
        raise ValueError("no experiment: omnihuman cache warm +experiment=humanomni_stage1.")
    from omnihuman.training.warm import fill_cache

    fill_cache(config, list(HydraConfig.get().overrides.task))
    print_size(config)


if __name__ == "__main__":
    main()
