"""Config of a study: ``experiments/<study>/sweep.yaml`` on top of ``conf/study.yaml``."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import config_dir
from omnihuman.overrides import without_keys


def register_cell_names() -> None:
    """Register the resolver ``${cell_names:}``, the names of a study's cells that Hydra sweeps over."""
    OmegaConf.register_new_resolver("cell_names", lambda *, _root_: ",".join(read_cells(_root_)), replace=True)


def read_cells(config: DictConfig) -> dict[str, dict[str, Any]]:
    """Return the cells of a study by name: the listed ones, then the combinations of its grid.

    >>> grid = {"encoder": {"umt": ["a=1"]}, "fusion": {"gate": [], "sum": ["b=2"]}}
    >>> cells = read_cells(OmegaConf.create({"cells": {}, "grid": grid}))
    >>> {name: cell["train"] for name, cell in cells.items()}
    {'umt-gate': ['a=1'], 'umt-sum': ['a=1', 'b=2']}
    """
    listed: Any = OmegaConf.to_container(config.cells, resolve=True)
    cells = {str(name): dict(cell or {}) for name, cell in listed.items()}
    if config.get("grid"):
        axes: Any = OmegaConf.to_container(config.grid, resolve=True)
        cells |= _combine(axes)
    return cells


def _combine(axes: Mapping[str, Mapping[str, list[str]]]) -> dict[str, dict[str, Any]]:
    """Return a cell for every combination of one choice per axis, named after its choices."""
    cells = {}
    for combination in itertools.product(*(axis.items() for axis in axes.values())):
        name = "-".join(str(choice) for choice, _ in combination)
        overrides: list[str] = []
        for _, choice_overrides in combination:
            overrides += choice_overrides
        cells[name] = {"label": name, "train": overrides}
    return cells


def find_studies() -> dict[str, Path]:
    """Return the folder of every study, by name: in ``experiments`` beside the folder of the yaml files."""
    experiments = Path(config_dir()).parent / "experiments"
    return {path.parent.name: path.parent for path in sorted(experiments.glob("*/sweep.yaml"))}


def locate_study(study: str) -> Path:
    """Return the folder of a study from its name or its path.

    Raises:
        ValueError: there is no such study.
    """
    folders = find_studies()
    folder = folders.get(study, Path(study))
    if not (folder / "sweep.yaml").is_file():
        raise ValueError(f"{study}: unknown study; expected a folder with a sweep.yaml or one of {', '.join(folders)}.")
    return folder.resolve()


def build_arguments(study: str, overrides: Sequence[str]) -> list[str]:
    """Return Hydra's command line that sweeps over the cells of a study."""
    folder = locate_study(study)
    return ["--config-dir", str(folder), "--config-name", "sweep", f"study={folder.name}", *overrides]


def compose_study(study: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config of a whole study, without a selected cell."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()  # a verb may have initialized Hydra with other folders
    folder = locate_study(study)
    selected = without_keys(overrides, "cell", "hydra", "rung")
    search = f"hydra.searchpath=[file://{config_dir()}]"
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("sweep", overrides=[search, f"study={folder.name}", *selected])
