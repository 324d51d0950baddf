"""Config of a study: ``experiments/<study>/sweep.yaml`` on top of ``conf/study.yaml``."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from omnihuman import gate
from omnihuman.build import config_dir
from omnihuman.overrides import quote, without_keys
from omnihuman.studies.outcome import locate_results

SWEEP = "sweep.yaml"
"""File of a study; its folder gives the study its name."""

STORED = "study.yaml"
"""Copy of a study's config in its results folder, as it was run."""


def register_axes() -> None:
    """Register the resolvers ``${cell_names:}`` and ``${cell_seeds:}``, the axes that Hydra sweeps over."""
    OmegaConf.register_new_resolver("cell_names", lambda *, _root_: ",".join(read_cells(_root_)), replace=True)
    OmegaConf.register_new_resolver("cell_seeds", _join_seeds, replace=True)


def _join_seeds(*, _root_: DictConfig) -> str:
    return ",".join(map(str, list_seeds(_root_)))


def list_seeds(config: DictConfig) -> list[int]:
    """Return the seeds with which every cell is trained; a rung of successive halving uses the first alone.

    Raises:
        ValueError: ``seeds`` is no list of different integers.
    """
    seeds = config.seeds
    is_list = isinstance(seeds, ListConfig) and len(seeds) > 0 and all(type(seed) is int for seed in seeds)
    if not is_list or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds}: expected a list of different integers, such as seeds=[1,2,3].")
    return list(seeds[:1] if config.get("rung") is not None else seeds)


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


def drop_null_evaluations(config: DictConfig) -> DictConfig:
    """Return the config of a study without the evaluations and scores that are null at its size.

    >>> evaluations = {"dfew": None, "emotion": ["benchmark=sample"]}
    >>> config = OmegaConf.create({"evaluations": evaluations, "scores": {"dfew/war": "DFEW", "emotion/war": "WAR"}})
    >>> drop_null_evaluations(config)
    {'evaluations': {'emotion': ['benchmark=sample']}, 'scores': {'emotion/war': 'WAR'}}
    """
    config = config.copy()
    evaluations, scores = config.evaluations, config.scores
    dropped = [name for name in evaluations if evaluations[name] is None]
    with open_dict(config):
        for name in dropped:
            del evaluations[name]
        for key in list(scores):
            if scores[key] is None or str(key).partition("/")[0] in dropped:
                del scores[key]
    return config


def build_evaluations(config: DictConfig, cell: str) -> dict[str, list[str]]:
    """Return the evaluations of a cell, name -> overrides of ``omnihuman evaluate``: the study's, then the cell's."""
    options = read_cells(config)[cell]
    evaluations: Any = OmegaConf.to_container(config.evaluations, resolve=True)
    skipped, extra = options.get("skip", ()), list(map(str, options.get("evaluate", ())))
    return {name: [*_flatten(overrides), *extra] for name, overrides in evaluations.items() if name not in skipped}


def _flatten(overrides: Sequence[Any]) -> list[str]:
    """Return overrides as texts, with those of a list among them, as an interpolation inserts it."""
    flat: list[str] = []
    for override in overrides:
        if isinstance(override, list):
            flat += map(str, override)
        else:
            flat.append(str(override))
    return flat


def find_baseline(config: DictConfig) -> str:
    """Return the cell that the others are compared with: ``baseline``, or the first."""
    return str(config.baseline or next(iter(read_cells(config)), ""))


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
    return {path.parent.name: path.parent for path in sorted(experiments.glob(f"*/{SWEEP}"))}


def locate_study(study: str) -> Path:
    """Return the folder of a study from its name, or from the path of its folder or of its ``sweep.yaml``.

    Raises:
        ValueError: there is no such study.
    """
    folders = find_studies()
    folder = folders.get(study, Path(study).expanduser())
    if folder.name == SWEEP:
        folder = folder.parent
    if not (folder / SWEEP).is_file() and len(Path(study).parts) > 1:
        raise ValueError(f"{study}: there is no {folder / SWEEP}; docs/guide/own_clips.md has one to begin with.")
    if not (folder / SWEEP).is_file():
        raise ValueError(f"{study}: unknown study; expected a folder with a {SWEEP} or one of {', '.join(folders)}.")
    return folder.resolve()


def build_arguments(study: str, overrides: Sequence[str]) -> list[str]:
    """Return Hydra's command line that sweeps over the cells of a study."""
    folder = locate_study(study)
    return ["--config-dir", str(folder), "--config-name", "sweep", *_name_study(folder), *overrides]


def _name_study(folder: Path) -> list[str]:
    return [f"study={quote(folder.name)}", f"folder={quote(str(folder))}"]


def compose_study(study: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config of a whole study, without a selected cell."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()  # a verb may have initialized Hydra with other folders
    folder = locate_study(study)
    selected = without_keys(overrides, "cell", "cell_seed", "hydra", "rung")
    search = f"hydra.searchpath=[{quote(f'file://{config_dir()}')}]"
    with initialize_config_dir(str(folder), version_base="1.3"):
        return drop_null_evaluations(compose("sweep", overrides=[search, *_name_study(folder), *selected]))


def store_study(config: DictConfig) -> None:
    """Write the config of a study to its results folder, where ``load_study`` finds it."""
    folder = locate_results(config)
    folder.mkdir(parents=True, exist_ok=True)
    stored = OmegaConf.merge(config, {"cell": None, "cell_seed": None, "rung": None})
    OmegaConf.save(OmegaConf.to_container(stored, resolve=True), folder / STORED)


def load_study(study: str, runs: str, size: str | None = None) -> DictConfig:
    """Return the config of a study as it was run last, else as its ``sweep.yaml`` has it.

    Args:
        study: name, or path.
        runs: folder of the runs, which holds the results.
        size: of the runs; ``None``: the only one with results.

    Raises:
        ValueError: there is no such study, or it has results at several sizes.
    """
    path = Path(study).expanduser()
    if path.name == SWEEP or (path / SWEEP).is_file():
        study_name = locate_study(study).name
    else:
        study_name = path.name
    files = sorted(Path(runs).glob(f"{size or '*'}/studies/{study_name}/{STORED}"))
    if len(files) > 1:
        sizes = ", ".join(file.parents[2].name for file in files)
        raise ValueError(f"study={study} has results at the sizes {sizes}: add size=...")
    if not files:
        overrides = [f"runs={quote(runs)}"]
        return compose_study(study, overrides if size is None else [*overrides, f"size={size}"])
    return gate.read_config(files[0])
