"""Composition of configs and construction of objects from them."""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache, partial
from importlib.resources import files
from inspect import signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from omnihuman.config_files import config_dir as config_dir
from omnihuman.gate import MODEL_KEYS, SPECIAL_KEYS, check_node
from omnihuman.overrides import Override, apply_values, parse_overrides
from omnihuman.plugins import list_config_folders
from omnihuman.source.root import find_validation_index, read_records_folder

PART_GROUPS = ("encoders", "projectors", "early_fusions", "fusions")
WIRING = {"reads": "encoders", "projector_inputs": "projectors", "conditions": "projectors"}
"""Key of a model whose entries belong to parts -> group of these parts."""


def register_resolvers() -> None:
    """Register the resolvers of the configs.

    They are ``${foundation:llm}`` (weights in the package), ``${hub:id}`` (null where weights are random),
    ``${records_folder:mine,val}`` (a file of a records folder, null without it; the folder itself may be null, too) and
    ``${validation_index:idx}`` (the index of the validation in an index, null without it).
    """
    OmegaConf.register_new_resolver("foundation", _resolve_foundation, replace=True)
    OmegaConf.register_new_resolver("hub", _resolve_hub, replace=True)
    OmegaConf.register_new_resolver("records_folder", _resolve_records_folder, replace=True)
    OmegaConf.register_new_resolver("validation_index", _resolve_validation_index, replace=True)


class PluginSearchPath(SearchPathPlugin):
    """Adds the yaml files of plugins to those of the package, which come first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in list_config_folders():
            search_path.append("omnihuman.plugins", f"file://{folder}")


class CachedFileSource(FileConfigSource):
    """Parses a yaml file twice at most unless it changes: chains and studies compose the same files many times.

    The first result of a file is not kept, because copies of all would delay the commands that compose once.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        status = Path(self.path, self._normalize_file_name(config_path)).stat()
        key = (self.provider, self.path, config_path, status.st_mtime_ns, status.st_size)
        if key in _loaded:
            return deepcopy(_load_file(*key))
        _loaded.add(key)
        return super().load_config(config_path)


_loaded = set[tuple[str, str, str, int, int]]()


@lru_cache(maxsize=1024)
def _load_file(provider: str, folder: str, config_path: str, modified: int, size: int) -> ConfigResult:
    return FileConfigSource(provider, folder).load_config(config_path)


Plugins.instance().register(PluginSearchPath)
CachedFileSource.__name__ = FileConfigSource.__name__  # a job of submitit registers Hydra's class again, by its name
SourcesRegistry.instance().types[FileConfigSource.scheme()] = CachedFileSource


def _resolve_foundation(name: str) -> str:
    folder = files("omnihuman") / "foundation" / "nano" / name
    if not folder.is_dir():
        raise ValueError(f"the package has no foundation weights named {name!r}: {folder} does not exist.")
    return str(folder)


def _resolve_hub(name: str, random_name: str | None = None, *, _root_: Any) -> str | None:
    return random_name if _root_.get("random_weights") else name


def _resolve_records_folder(path: str | None, field: str) -> str | None:
    value = None if path is None else getattr(read_records_folder(path), field)
    return None if value is None else str(value)


def _resolve_validation_index(index: str) -> str | None:
    folder = find_validation_index(index)
    return None if folder is None else str(folder)


def compose_config(overrides: Sequence[str], root: str | None = "train") -> DictConfig:
    """Return the config that a verb would run with these overrides, inside or outside a Hydra program.

    Args:
        overrides: as on the command line.
        root: name of the root config; ``None`` starts from an empty one.

    Raises:
        ValueError: an override chooses an unknown size for a part.
    """
    register_resolvers()
    return _compose(tuple(select_model_of_base(overrides)), root).copy()


def select_model_of_base(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the size of ``base``, and with its model if the experiment has none of its own.

    Args:
        arguments: overrides, and options of Hydra.

    Raises:
        ValueError: the base names no model, or several bases of a sweep differ in model or size.
    """
    overrides = parse_overrides([argument for argument in arguments if "=" in argument and argument[0] != "-"])
    typed = {override.key: override for override in overrides}
    if "base" not in typed or "experiment" not in typed:
        return list(arguments)
    paths = {"model": "model.variant", "size": "size"}
    if has_model(typed["experiment"].value):
        del paths["model"]
    missing = []
    for key in [key for key in paths if key not in typed]:
        values = _read_values(typed["base"].choices, paths[key])
        if len(values) > 1:
            raise ValueError(f"{typed['base']}: the folders differ in their {key}; run one command for each.")
        if None in values and "model" in paths:
            raise ValueError(f"{typed['base']}: config.yaml of the folder does not name its {key}; add {key}=<name>.")
        missing += [f"{key}={value}" for value in values if value is not None]
    return [*arguments, *missing]


def _read_values(folders: Sequence[str], key: str) -> set[str | None]:
    """Return the names that a key has in the configs of model folders, as far as there are such folders.

    Strangers may have written them: nothing is interpolated, and what is no name is ``None``.
    """
    values = set[str | None]()
    for folder in folders:
        file = Path(folder).expanduser() / "config.yaml"
        if file.is_file():
            values.add(_read_name(file, key))
    return values


def _read_name(file: Path, key: str) -> str | None:
    try:
        node: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError):
        return None
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, str) and re.fullmatch(r"\w+", node) else None


@lru_cache
def has_model(experiment: str) -> bool:
    """Return true if an experiment has a model of its own, and not that of ``base``."""
    file = Path(config_dir()) / "experiment" / f"{experiment}.yaml"
    if not file.is_file():
        return True
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return {"override /model": None} not in content.get("defaults", [])


@lru_cache(maxsize=256)  # a chain composes the same stages many times
def _compose(overrides: tuple[str, ...], root: str | None) -> DictConfig:
    """Compose in two steps, because Hydra reads every file again for each command line: first the files, then values.

    Chains, sweeps and studies compose the same files with many values.
    """
    check_sizes(overrides)
    conf = Path(config_dir())
    choices: list[Override] = []
    values: list[Override] = []
    for override in parse_overrides(overrides):
        is_choice = (conf / override.name).is_dir() or override.root == "hydra" or override.is_sweep
        (choices if is_choice else values).append(override)
    config = _compose_files(tuple(map(str, choices)), root).copy()
    apply_values(config, values)
    return config


@lru_cache(maxsize=256)
def _compose_files(overrides: tuple[str, ...], root: str | None) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if GlobalHydra.instance().is_initialized():
        return compose(root, overrides=list(overrides))
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose(root, overrides=list(overrides))


def check_sizes(overrides: Sequence[str]) -> None:
    """Check overrides of the size of one part, ``encoder/siglip@model.encoders.video=0_5b``.

    Overlays are optional, so Hydra would skip one that does not exist.

    Raises:
        ValueError: the size is unknown, or stands in the name of a preset.
    """
    conf = Path(config_dir())
    sizes = sorted(path.stem for path in (conf / "size").glob("*.yaml"))
    for override in parse_overrides(overrides):
        if override.is_delete or not (conf / override.name).is_dir():
            continue
        is_overlay = "/" in override.name and (conf / f"{override.name}.yaml").is_file()  # llm/template is a group
        if is_overlay and not set(override.choices) <= set(sizes):
            raise ValueError(f"{override}: there is no such size; expected one of {', '.join(sizes)}.")
        if "/" in override.value:
            raise ValueError(
                f"{override}: expected a preset; its size is an override of its own, such as "
                "encoder@model.encoders.video=siglip encoder/siglip@model.encoders.video=0_5b."
            )


def compose_part(group: str, name: str, overrides: Sequence[str] = (), size: str = "nano") -> DictConfig:
    """Return the config of one part alone: ``compose_part("projector", "stc", size="7b")``."""
    config = compose_config([f"+{group}={name}", f"+size={size}", *overrides], root=None)
    part = OmegaConf.select(config, group.replace("/", "."))
    assert isinstance(part, DictConfig)
    return part


def build(config: DictConfig | Mapping[str, Any], **kwargs: Any) -> Any:
    """Build the object of a config and every object below it; containers become plain dicts and lists.

    Args:
        config: a node with ``_target_``. Its list ``drop`` names parts (``projectors.body``) that are left out.
        kwargs: keyword arguments in addition to the node's own.

    Raises:
        ValueError: the gate refuses a target or an argument, ``drop`` names an unknown part, an option has a value that
            its part does not allow, or a value is missing.
    """
    plain: Any = config
    if isinstance(config, DictConfig):
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=not kwargs)
    pruned = prune(plain) | kwargs
    _walk(pruned, "", _check_options)
    return _construct(pruned, "")


def _construct(node: Any, path: str) -> Any:
    """Return a checked config with an object, or a partial one, in the place of every node with a target."""
    if isinstance(node, list):
        return [_construct(child, path) for child in node]
    if not isinstance(node, dict):
        return node
    values = {key: _construct(child, f"{path}{key}.") for key, child in node.items() if key not in SPECIAL_KEYS}
    if "_target_" not in node:
        return values
    target = check_node(path, node)
    if node.get("_partial_"):
        return partial(target, **values)
    try:
        return target(**values)
    except (ValueError, OSError):
        raise
    except Exception as error:  # such as that of a value of another type
        raise ValueError(f"{path or node['_target_']}: {type(error).__name__}: {error}") from error


def prune(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain config without the parts that ``drop`` names, and without the wiring of deselected parts."""
    pruned = {key: value for key, value in node.items() if key not in MODEL_KEYS}
    dropped = set()
    for path in node.get("drop") or []:
        group, _, name = str(path).partition(".")
        names = sorted(pruned.get(group) or {})
        if name not in names:
            raise ValueError(f"drop names {path!r}, but {group!r} has only {names}.")
        dropped.add((group, name))
    for group in PART_GROUPS:
        if group in pruned:
            pruned[group] = _select_parts(pruned[group] or {}, group, dropped)
    for key, group in WIRING.items():
        if pruned.get(key):
            pruned[key] = {name: value for name, value in pruned[key].items() if (group, name) not in dropped}
    return pruned


def _select_parts(parts: Mapping[str, Any], group: str, dropped: set[tuple[str, str]]) -> dict[str, Any]:
    """Return the parts of a group that are not dropped; a deselected part is added to ``dropped``."""
    selected = {}
    for name, part in parts.items():
        if not part or "_target_" not in part:
            dropped.add((group, name))
        if (group, name) not in dropped:
            selected[name] = part
    return selected


def _walk(node: Any, path: str, check: Callable[[Mapping[Any, Any], str], None]) -> None:
    """Call ``check`` with every dict of a plain config and its path, ``projectors.face.``."""
    if isinstance(node, dict):
        check(node, path)
        for key, child in node.items():
            _walk(child, f"{path}{key}.", check)
    elif isinstance(node, list):
        for child in node:
            _walk(child, path, check)


def _check_options(node: Mapping[Any, Any], path: str) -> None:
    """Check a node of a config: its values are set, and where it has a target, the gate lets it pass.

    Python does not check that an option has a value of its ``Literal`` annotation.
    """
    for key, value in node.items():
        if isinstance(value, str) and value == "???":
            raise ValueError(f"{path}{key} is missing: give it a value.")
    if "_target_" not in node:
        return
    target = check_node(path, node)
    if not target.__module__.startswith("omnihuman."):
        return
    for key, parameter in signature(target).parameters.items():
        value = node.get(key)
        choices = _literal_choices(parameter.annotation)
        if isinstance(value, str) and choices and value not in choices:
            raise ValueError(f"{path}{key}={value}: choose from {', '.join(choices)}.")
        if key in node and not _fits(value, parameter.annotation):
            noun = str(getattr(parameter.annotation, "__name__", parameter.annotation))
            raise ValueError(f"{path}{key}={value}: expected {noun}, got {type(value).__name__}.")


def _fits(value: Any, annotation: Any) -> bool:
    """Return false if a value is a plain one of another type than a plain annotation.

    >>> _fits("many", int), _fits(2, float), _fits(True, int), _fits(None, int | None), _fits("a", Path)
    (False, True, False, True, True)
    """
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if not set(types) <= {int, float, bool, str, NoneType}:
        return True
    return type(value) in types or (type(value) is int and float in types)


def _literal_choices(annotation: Any) -> list[Any]:
    """Return the values of a ``Literal``, also in a union.

    >>> _literal_choices(Literal["a", "b"] | None)
    ['a', 'b']
    """
    choices = list[Any]()
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is Literal:
            choices += get_args(kind)
    return choices
