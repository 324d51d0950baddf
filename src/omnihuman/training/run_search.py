"""Model folders by their names: the one that ``run=`` stands for, its config, and what is wrong with one."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman import gate
from omnihuman.build import register_resolvers
from omnihuman.config_files import list_choices
from omnihuman.training.runs import FINISHED, Run

MAX_LISTED = 8
"""Runs that a message lists."""


def find_run_folder(config: Mapping[str, Any] | DictConfig) -> Path:
    """Return the folder that ``run=`` names: the path of a model folder, or a name below ``<runs>/<size>``.

    A name stands for the folder ``<runs>/<size>/<run>/<variant>``. Where there is none, it stands for the only finished
    run below ``<runs>/<size>/<run>``, whatever its variant. Without ``size`` both are searched at every size.

    Args:
        config: with ``run``, ``runs`` and, optionally, ``size`` and ``variant``.

    Raises:
        ValueError: the name stands for several runs, which the message lists, for an unfinished one, or for none.
    """
    path = Path(str(config["run"])).expanduser()
    if (path / "config.yaml").is_file() or (path / "config.json").is_file():
        return path
    runs = Path(str(config["runs"]))
    sizes = [runs / str(config.get("size"))] if config.get("size") else sorted(runs.glob("*"))
    named = [size / str(config["run"]) / str(config.get("variant") or "") for size in sizes]
    exact = [folder for folder in named if _is_run(folder)]
    finished = [folder for folder in exact if Run(folder, "").is_complete()]
    candidates = finished or exact or _find_runs(named, is_finished=True)
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError(f"run={config['run']}: {_describe_candidates(config, sizes, named, candidates)}")


def _is_run(folder: Path) -> bool:
    """Return True for the folder of a run, finished or not, or of what was copied of one for its reports."""
    return any((folder / name).exists() for name in ("config.yaml", "digest", "evaluation"))


def _find_runs(folders: Sequence[Path], is_finished: bool) -> list[Path]:
    """Return the runs at any depth below some folders, without those that were moved aside."""
    runs = []
    for folder in folders:
        for file in sorted(folder.rglob(FINISHED if is_finished else "digest")):
            run = file.parent
            if Run(run, "").is_complete() == is_finished and not _is_moved(run):
                runs.append(run)
    return runs


def _is_moved(folder: Path) -> bool:
    """Return True for a run that another one has moved aside: ``seed=1.1``, whose config has ``variant: seed=1``."""
    name, _, number = folder.name.rpartition(".")
    if not number.isdigit() or not folder.with_name(name).is_dir():
        return False
    config = _read_written(folder)
    return str(config.get("variant") or config.get("name")).rpartition("/")[2] == name


def _describe_candidates(
    config: Mapping[str, Any] | DictConfig, sizes: Sequence[Path], named: Sequence[Path], candidates: Sequence[Path]
) -> str:
    """Return why a name does not stand for one run, and what to write instead."""
    if candidates:
        return f"{len(candidates)} runs have this name: {_list(candidates)}; write size=, variant= or the path as run=."
    unfinished = _find_runs(named, is_finished=False)
    if unfinished:
        return describe_unfinished(unfinished[0])
    every = _find_runs(sorted(Path(str(config["runs"])).glob("*")), is_finished=True)
    place = ", ".join(map(str, sizes)) if config.get("size") else str(config["runs"])
    near = get_close_matches(str(config["run"]), [_name(folder) for folder in every], 3, 0.6)
    likely = [folder for folder in every if _name(folder) in near] or every
    known = f"finished runs are {_list(likely)}" if likely else "no run is finished"
    if str(config["run"]) in list_choices("experiment"):
        size = f" size={config['size']}" if config.get("size") else ""
        known += f"; train it: omnihuman train +experiment={config['run']}{size}"
    return f"there is no such run in {place}; {known}."


def describe_unfinished(folder: Path) -> str:
    """Return that a run is unfinished, with the command that continues it, as far as its config names it."""
    config = _read_written(folder)
    command = f"omnihuman train +experiment={config.get('name') or folder.name}"
    for key in ("size", "base"):
        if config.get(key):
            command += f" {key}={config[key]}"
    return f"{folder} is not finished; its command continues it: {command} and the further options that it had."


def _read_written(folder: Path) -> dict[str, Any]:
    """Return the config of a run as it is written, empty without one."""
    file = folder / "config.yaml"
    config: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    return dict(config)


def _name(folder: Path) -> str:
    """Return the name of a run, without its size and its variant: the folder below that of the size."""
    config = _read_written(folder)
    return str(config.get("name") or folder.name)


def _list(folders: Sequence[Path]) -> str:
    names = [str(folder) for folder in folders[:MAX_LISTED]]
    if len(folders) > MAX_LISTED:
        names.append(f"and {len(folders) - MAX_LISTED} more")
    return ", ".join(names)


def check_model_folder(folder: Path) -> None:
    """Check that a folder contains a finished run or a converted checkpoint.

    Raises:
        ValueError: it does not; the message has the command that trains or converts it.
    """
    if (folder / "config.json").is_file() and not (folder / "config.yaml").is_file():
        source = "humanomni"
        if '"omnihuman"' in (folder / "config.json").read_text():
            source = "omnihuman"
        raise ValueError(
            f"{folder} has the layout of Hugging Face; convert it to a model folder: omnihuman convert "
            f"official={source} path={folder} out={folder.absolute().name}_ours"
        )
    if (folder / "digest").is_file() and not Run(folder, "").is_complete():
        raise ValueError(describe_unfinished(folder))
    if Run(folder, "").is_complete() and (folder / "config.yaml").is_file():
        return
    message = f"{folder} holds no finished run"
    runs = sorted({path.parent.name for path in folder.parent.glob(f"*/{FINISHED}")})
    if runs:
        message = f"{message}; beside it are {', '.join(get_close_matches(folder.name, runs, 3, 0.5) or runs)}"
    if folder.name in list_choices("experiment"):
        message = f"{message}; train it: omnihuman train +experiment={folder.name} size={folder.parent.name}"
    raise ValueError(f"{message}.")


def read_config(folder: Path, *, is_portable: bool = False) -> DictConfig:
    """Return the config of a model folder, checked and resolved; its key ``folder`` is the folder's path.

    Args:
        folder: of a finished run or a converted checkpoint.
        is_portable: leave the interpolations that stand for weights of the package and of the hub.

    Raises:
        ValueError: the folder contains no finished run and no converted checkpoint, or the gate refuses its config.
    """
    check_model_folder(folder)
    register_resolvers()  # the config contains interpolations of them
    config = gate.read_config(folder / "config.yaml", folder.absolute(), is_portable=is_portable)
    if "model" not in config or "data" not in config:
        raise ValueError(f"{folder / 'config.yaml'} has no keys model and data: {folder} is no model folder.")
    return config
