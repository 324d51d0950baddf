"""Checks of the values of a command line, before anything heavy is imported."""

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError

from omnihuman.build import compose_config
from omnihuman.config_files import find_comment, find_example
from omnihuman.keys import LAZY_NODES, check_files, check_keys, is_choice, join, list_keys, select
from omnihuman.overrides import Override, parse_overrides
from omnihuman.training.run_search import check_model_folder, find_run_folder

FREE_TYPES = (
    "trainer.devices",
    "trainer.precision",
    "recipe.activation_checkpointing",
    "model.llm.activation_checkpointing",
    "chain",
    "processes",
)
"""Keys that take values of several types."""

CHOICES = {
    "chain": (True, False, "same_data"),
    "select": ("last", "best"),
    "on_bad_loss": ("stop", "skip"),
}
"""Key of ``train`` -> its values, where no group lists them."""

COUNTS = ("recipe.batch_size", "recipe.max_epochs", "val_every", "patience", "save_top_k")
"""Keys of ``train`` that are whole numbers of 1 or more, or null."""

PATHS = {
    "": {
        **dict.fromkeys(("data.root", "benchmark.root"), "folder"),
        **dict.fromkeys(("data.path", "data.records", "data.val_records", "benchmark.path", "judge.file"), "data file"),
    },
    "generate": {**dict.fromkeys(("video", "audio", "image", "questions"), "file"), "root": "folder"},
    "report": dict.fromkeys(("folder", "baseline"), "folder"),
    "train": {"replay": "file"},
    "inspect": {"test_records": "data file"},
}
"""Verb, or nothing for all of them -> keys of paths that must exist -> what is there."""

CREATED = ("omnihuman.source.sample.", "omnihuman.benchmark.sample.")
"""Beginnings of targets that create their folder if it does not exist."""

RUN_VERBS = ("generate", "chat", "serve", "evaluate")
"""Verbs that begin by loading the model of ``run=``."""

TRACKERS = ("mlflow", "swanlab", "wandb")
"""Loggers that need a package of the same name."""


def check_command_line(texts: Sequence[str], config: DictConfig, root: str) -> None:
    """Check the overrides of a command line: their keys, types and paths, and that no value is missing.

    Args:
        texts: the overrides.
        config: the config that they compose.
        root: name of the root config.

    Raises:
        ValueError: nothing reads a key, a value has another type than the one it replaces, a value is missing, or a
            path does not exist.
    """
    check_keys(texts, config, root)
    check_files(config, root)
    check_types(texts, root)
    check_missing(config, root)
    check_paths(texts, config, root)
    if root == "train":
        check_training(texts, config)
    check_packages(config)
    if root in RUN_VERBS:
        check_model_folder(find_run_folder(config))
    with suppress(InterpolationToMissingValueError):  # of a part that is not built
        OmegaConf.to_container(config, resolve=True)


def check_missing(config: DictConfig, root: str) -> None:
    """Check that every key has a value.

    Raises:
        ValueError: one has none; the message has an example.
    """
    dropped = [f"model.{part}" for part in select(config, "model.drop") or ()]
    missing = []
    for key in OmegaConf.missing_keys(config):
        if not any(f"{key}.".startswith(f"{node}.") for node in (*dropped, LAZY_NODES.get(root, "hydra"))):
            missing.append(key)
    if missing:
        key, *further = sorted(missing, key=lambda path: list(list_keys(config)).index(path))
        raise ValueError(describe_missing(key, root, further))


def describe_missing(key: str, root: str | None, further: Sequence[str] = ()) -> str:
    """Return the message about a key without a value, with its comment in the yaml and an example."""
    comment = find_comment(key, root) if root else ""
    example = find_example(key, root) if root else None
    note = f" ({join(further, 'and')} too)" if further else ""
    return f"{key} has no value{note}: add {key}={example or '...'}{f' ({comment})' if comment else ''}."


def check_types(texts: Sequence[str], root: str) -> None:
    """Check that values have the type of what they replace: ``overwrite=no`` is a text, which counts as true.

    Args:
        texts: the overrides.
        root: name of the root config.

    Raises:
        ValueError: a text stands for a number, a truth value or a list; or a number for a truth value.
    """
    overrides = parse_overrides(texts)
    values = [override for override in overrides if _is_plain_value(override)]
    if not values:
        return
    config = compose_config([str(override) for override in overrides if is_choice(override)], root)
    for override in values:
        default, value = select(config, override.key), override.parsed_value
        if isinstance(value, str) and "${" in value:
            continue
        if expected := _find_mismatch(default, value):
            raise ValueError(f"{override}: expected {expected}, such as {override.key}={_write(default, value)}.")


def _is_plain_value(override: Override) -> bool:
    if override.is_delete or override.is_sweep or is_choice(override) or override.is_new:
        return False
    return override.root != "hydra" and not override.is_below(*FREE_TYPES)


def _find_mismatch(default: Any, value: Any) -> str | None:
    """Return a noun for the type of the default, if a value has another one."""
    if default is None or value is None:
        return None
    is_text, is_truth = isinstance(value, str), isinstance(value, bool)
    if isinstance(default, bool):
        return None if is_truth else "true or false"
    if isinstance(default, int | float):
        return "a number" if is_text or is_truth else None
    if isinstance(default, ListConfig):
        return "a list" if not isinstance(value, list) else None
    return None


def _write(default: Any, value: Any) -> str:
    if isinstance(default, ListConfig):
        return f"[{value}]"
    return _write_value(default) if isinstance(default, bool) else f"{default}"


def check_training(texts: Sequence[str], config: DictConfig) -> None:
    """Check the values of ``train``, and what it is to train on.

    Raises:
        ValueError: a choice or a count has no possible value, or a model of a paper's size would be trained on the
            built-in corpus, and nobody has said so.
    """
    for key, values in CHOICES.items():
        if config[key] not in values:
            raise ValueError(f"{key}={config[key]}: choose from {', '.join(map(_write_value, values))}.")
    for key in COUNTS:
        value = select(config, key)
        if value is not None and not (type(value) is int and value >= 1):
            raise ValueError(f"{key}={value}: expected a number of 1 or more.")
    if config.val_every is not None and select(config, "trainer.check_val_every_n_epoch") != 1:
        raise ValueError("val_every counts steps, trainer.check_val_every_n_epoch epochs: set one of them.")
    is_chosen = any(override.root == "data" for override in parse_overrides(texts))
    is_corpus = str(select(config, "data.source._target_")).startswith(CREATED[0])
    if config.size != "nano" and is_corpus and not is_chosen and not config.dry_run:
        raise ValueError(
            f"size={config.size} is a model for your own data: add data=<records folder>. data=sample trains it on the "
            "drawings of the built-in corpus; dry_run=true and omnihuman plan need no data."
        )


def _write_value(value: Any) -> str:
    return str(value).lower()


def check_paths(texts: Sequence[str], config: DictConfig, root: str) -> None:
    """Check that files and folders exist that a command line names.

    Raises:
        ValueError: one does not exist; the message names similar ones beside it.
    """
    kinds = PATHS[""] | PATHS.get(root, {})
    for override in parse_overrides(texts):
        kind = kinds.get(override.key)
        if kind is None or override.is_delete or override.is_sweep or _is_created(config, override.root):
            continue
        value = override.parsed_value
        paths = value if isinstance(value, list) else [value]
        for path in paths:
            if isinstance(path, str) and "${" not in path and not _exists(path, kind):
                near = get_close_matches(Path(path).name, _list_names(Path(path).expanduser().parent), 1, 0.75)
                cure = f"; did you mean {Path(path).with_name(near[0])}?" if near else "."
                raise ValueError(f"{override.key}={path}: there is no such {kind}{cure}")


def _is_created(config: DictConfig, node: str) -> bool:
    targets = [str(select(config, f"{node}.{key}")) for key in ("_target_", "source._target_")]
    return any(target.startswith(CREATED) for target in targets)


def _exists(path: str, kind: str) -> bool:
    place = Path(path).expanduser()
    return place.is_dir() if kind == "folder" else place.exists()


def _list_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def check_packages(config: DictConfig) -> None:
    """Check that the packages of the selected loggers are installed.

    Raises:
        ValueError: one is not; the message has the command that installs it.
    """
    for name in select(config, "logger") or ():
        if name in TRACKERS and find_spec(name) is None:
            raise ValueError(f"logger={name}: {name} is not installed: pip install {name}")
