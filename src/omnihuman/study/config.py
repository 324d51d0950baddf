"""A study by its name: ``experiments/<study>/sweep.yaml`` on top of ``conf/study.yaml``."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import config_dir


def register_cells() -> None:
    """Make ``${cells_of:}`` known: the names of a study's cells, as Hydra sweeps over them."""
    OmegaConf.register_new_resolver("cells_of", lambda *, _root_: ",".join(cells_of(_root_)), replace=True)


def cells_of(config: DictConfig) -> dict[str, dict[str, Any]]:
    """The cells of a study by name: those that it lists, and the product of its grid's axes.

    >>> one = {"cells": {}, "grid": {"encoder": {"umt": ["a=1"]}, "fusion": {"gate": [], "sum": ["b=2"]}}}
    >>> {name: cell["train"] for name, cell in cells_of(OmegaConf.create(one)).items()}
    {'umt-gate': ['a=1'], 'umt-sum': ['a=1', 'b=2']}
    """
    said: Any = OmegaConf.to_container(config.cells, resolve=True)
    found = {str(name): dict(cell or {}) for name, cell in said.items()}
    axes: Any = OmegaConf.to_container(config.grid, resolve=True) if config.get("grid") else {}
    for choice in itertools.product(*(axis.items() for axis in axes.values())) if axes else ():
        name = "-".join(str(one) for one, _ in choice)
        found[name] = {"label": name, "train": [each for _, overrides in choice for each in overrides]}
    return found


def folder_named(study: str) -> Path:
    """The folder of a study, given by its name or by its path.

    Raises:
        ValueError: there is no such study.
    """
    experiments = Path(config_dir()).parent / "experiments"
    known = {path.parent.name: path.parent for path in sorted(experiments.glob("*/sweep.yaml"))}
    folder = known.get(study, Path(study))
    if not (folder / "sweep.yaml").is_file():
        raise ValueError(f"{study} is no study and no folder with a sweep.yaml; the studies are {', '.join(known)}.")
    return folder.resolve()


def arguments_of(study: str, overrides: Sequence[str]) -> list[str]:
    """Hydra's command line that sweeps over the cells of a study."""
    folder = folder_named(study)
    return ["--config-dir", str(folder), "--config-name", "sweep", f"study={folder.name}", *overrides]


def compose_study(study: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a study as a whole, for its table."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()  # a verb may have been started by Hydra with other folders
    folder = folder_named(study)
    own = [each for each in overrides if not each.startswith(("cell=", "hydra", "+hydra", "rung="))]
    search = f"hydra.searchpath=[file://{config_dir()}]"
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("sweep", overrides=[search, f"study={folder.name}", *own])
