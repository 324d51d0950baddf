"""Checks of a command line against the config that it composes, before anything heavy is imported."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from omnihuman.build import compose_config
from omnihuman.config_files import config_dir, list_choices, list_defaults, read_file
from omnihuman.gate import KINDS, find_target
from omnihuman.overrides import Override, parse_overrides

FREE_NODES = ("trainable",)
"""Nodes whose keys are the user's own."""

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
CURES = {
    "trainer.logger": "choose a group: logger=csv (nothing besides metrics.csv), logger=tensorboard, logger=wandb",
    "trainer.callbacks": "choose a group: callback=ema, or callback=[ema,device_stats]; patience= ends early",
    "trainer.accumulate_grad_batches": "it follows from recipe.batch_size (samples of an optimizer step) and "
    "recipe.max_tokens (tokens of a packed sequence); set these",
    "trainer.plugins": "set trainer.precision and trainer.strategy",
    "trainer.use_distributed_sampler": "the data shares its samples between ranks itself",
    "trainer.enable_model_summary": "the table of parts is always printed",
    "trainer.log_every_n_steps": "every step is logged",
    "optimizer.lr": "learning rates are values of trainable; set recipe.lr",
}
"""Keys of other programs that the program sets itself -> the cure."""

LAZY_NODES = {"report": "benchmark"}
"""Verb -> the node of which it reads only the target."""

MAX_OPTIONS = 6
"""Choices that a message lists in full."""


def check_keys(texts: Sequence[str], config: DictConfig, root: str) -> None:
    """Check that every key that a command line adds has a reader, and that none is removed that is always read.

    Args:
        texts: the overrides.
        config: the config that they compose.
        root: name of the root config.

    Raises:
        ValueError: nothing reads a key, or it is always read.
    """
    for override in parse_overrides(texts):
        is_group = is_choice(override)
        if not is_group and not _is_read(override, root):
            raise ValueError(
                f"{override}: there is no key {override.key} that omnihuman {root} reads; --help lists them."
            )
        if override.root == "hydra" or (is_group and not (override.is_new and override.package)):
            continue
        choices = [other for other in texts if other != override.text and is_choice(*parse_overrides([other]))]
        if override.is_delete:
            defaults = compose_config(choices, root)
            if not is_group and _find_owner(defaults, override.key) is None and not override.is_below(*FREE_NODES):
                raise ValueError(f"{override}: {override.key} is always read; give it a value: {override.key}=...")
        elif override.is_new:
            place = _find_new(compose_config(choices, root), override.key)
            reason = place and _find_fault(*place, config)
            if reason:
                raise ValueError(f"{override}: {reason}")


def check_files(config: DictConfig, root: str) -> None:
    """Check the keys of a config that its yaml files have, such as those of ``--config-dir``.

    Parts check their own options when they are built. The other nodes are read by name: an unknown key has no reader,
    unless a value refers to it.

    Args:
        config: the composed config.
        root: name of the root config.

    Raises:
        ValueError: nothing reads a key.
    """
    if not read_file(root).entries:  # the yaml of a study
        return
    for parent in ("", "recipe", "validation", "trainer"):
        node = select(config, parent) if parent else config
        names = set(map(str, node)) if isinstance(node, DictConfig) else set[str]()
        for name in sorted(names - _list_known(parent, root)):
            reason = _find_fault_by_name(config, parent, name, config)
            if reason:
                raise ValueError(f"a yaml file sets {f'{parent}.{name}'.lstrip('.')}: {reason}")


def _list_known(parent: str, root: str) -> set[str]:
    """Return the names of a node that files of the package give a value, whichever are selected."""
    files = [(name, parent) for name in (root, *read_file(root).bases)]
    files += [(f"size/{choice}", parent) for choice in list_choices("size")]
    if parent:
        files += [(f"{parent}/{choice}", "") for choice in list_choices(parent)]
    keys = [entry.package for entry in list_defaults(root)]
    for file, prefix in files:
        for entry in read_file(file).entries:
            if prefix in ("", entry.key.rpartition(".")[0]):
                keys.append(f"{parent}.{entry.key.removeprefix(f'{parent}.')}".lstrip("."))
    start = len(f"{parent}.") if parent else 0
    return {key[start:].partition(".")[0] for key in keys if key.startswith(parent)}


def _is_read(override: Override, root: str) -> bool:
    """Return false for a value of a node that a verb has without reading it: a size sets keys of the training."""
    places = [entry.package for entry in list_defaults(root)]
    for name in (root, *read_file(root).bases):
        places += [entry.key for entry in read_file(name).entries]
    if override.root == "hydra" or override.is_new or not places:
        return True
    if override.is_below(LAZY_NODES.get(root, "hydra")):
        return False
    is_known = any(place.partition(".")[0] == override.root for place in places)
    return is_known or "train" in (root, *read_file(root).bases)


def _find_new(defaults: DictConfig, key: str) -> tuple[DictConfig, str, str] | None:
    """Return the config, and the node and the first name of a key that are not in it together; ``None`` if they are."""
    names = key.split(".")
    for index, name in enumerate(names):
        node = OmegaConf.select(defaults, ".".join(names[:index])) if index else defaults
        if isinstance(node, ListConfig):
            return None
        if not isinstance(node, DictConfig) or name not in node:
            return defaults, ".".join(names[:index]), name
    return None


def _find_owner(defaults: DictConfig, key: str) -> str | None:
    """Return the path of the innermost node with a target that a key is below."""
    path = key
    while "." in path:
        path = path.rpartition(".")[0]
        node = select(defaults, path)
        if isinstance(node, DictConfig) and "_target_" in node:
            return path
    return None


def _find_fault(defaults: DictConfig, parent: str, name: str, config: DictConfig) -> str | None:
    """Return the reason why nothing reads a new key, with a cure; ``None`` if something does."""
    key = f"{parent}.{name}".lstrip(".")
    if key in CURES:
        return f"{CURES[key]}."
    if any(kind.is_at(key) and kind.place.endswith("*") for kind in KINDS):
        node = select(config, key)
        if isinstance(node, DictConfig) and "_target_" in node:
            return None
        if choices := list_choices(parent):
            return f"there is no {key}; choose {parent}={join(choices)} first, or give it a class: +{key}._target_=..."
        return f"there is no {key}, and a new one needs a _target_; {suggest(key, list_keys(defaults))}"
    owner = _find_owner(defaults, key)
    if owner is None:
        return _find_fault_by_name(defaults, parent, name, config)
    node = select(defaults, owner)
    if owner != parent or (owner == "model" and name == "drop"):  # an argument checks the keys below it
        return None
    arguments = list_arguments(str(node._target_), is_partial=bool(node.get("_partial_")))
    if arguments is None or name in arguments:
        return None
    keys = [f"{owner}.{argument}" for argument in arguments]
    return f"{node._target_.rpartition('.')[2]} has no option {name}; {suggest(key, keys)}"


def _find_fault_by_name(defaults: DictConfig, parent: str, name: str, config: DictConfig) -> str | None:
    """Return the reason why nothing reads a new key of a node that is read by name."""
    key = f"{parent}.{name}".lstrip(".")
    if parent in FREE_NODES or f"${{{key}" in str(OmegaConf.to_container(config)):
        return None
    keys = list(list_keys(defaults))
    if parent == "trainer":
        arguments = list_arguments(TRAINER) or ()
        if name in arguments:
            return None
        keys += [f"trainer.{argument}" for argument in arguments]
    return f"there is no key {key}; {suggest(key, keys)}"


def list_arguments(target: str, *, is_partial: bool = False) -> list[str] | None:
    """Return the arguments of a class, ``None`` if it takes any; the code of its file is enough in most cases.

    >>> list_arguments("omnihuman.projector.mlp.MLPProjector", is_partial=True)
    ['depth', 'resize']

    Args:
        target: its full name.
        is_partial: leave out required arguments, which the program sets.

    Raises:
        ValueError: a config may not build it.
    """
    module, _, name = target.rpartition(".")
    package, *rest = module.split(".")
    spec = find_spec(package)
    file = Path(str(spec and spec.origin)).parent.joinpath(*rest).with_suffix(".py")
    for node in ast.parse(file.read_bytes()).body if rest and file.is_file() else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                    return _read_arguments(function.args, is_partial)
    parameters = list(signature(find_target(f"{target}: _target_", target)).parameters.values())
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [item.name for item in parameters if not (is_partial and item.default is Parameter.empty)]


def _read_arguments(arguments: ast.arguments, is_partial: bool) -> list[str] | None:
    if arguments.kwarg:
        return None
    names = [argument.arg for argument in arguments.args[1:]]
    required = names[: len(names) - len(arguments.defaults)]
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        names.append(argument.arg)
        required += [argument.arg] * (default is None)
    return [name for name in names if not (is_partial and name in required)]


def suggest(key: str, keys: Iterable[str]) -> str:
    """Return the cure for an unknown key: the nearest ones, or all of its node.

    >>> suggest("recipe.learning_rate", ["recipe", "recipe.lr", "recipe.warmup", "data.root"])
    'did you mean recipe.lr?'

    Args:
        key: the unknown path.
        keys: the known paths; groups with their packages, ``fusion@model.fusions.gate``.
    """
    known = [path for path in dict.fromkeys(keys) if path != key]
    parent, _, name = key.rpartition(".")
    last = {path: path.rpartition(".")[2] for path in known if "@" not in path}
    siblings = {path: text for path, text in last.items() if path.rpartition(".")[0] == parent}
    initials = "".join(word[0] for word in name.split("_") if "_" in name and word)
    near = [path for path in known if path.partition("@")[0] == key]
    near += [path for path, text in last.items() if text in (name, initials)]
    close = get_close_matches(name, siblings.values(), 3, 0.6)
    near += [path for path, text in siblings.items() if text in close]
    if not near:
        word = f"+{key}" if f"+{key}" in known else key
        near = [path for path in get_close_matches(word, known, 3, 0.75) if path != parent]
    if near:
        return f"did you mean {join(list(dict.fromkeys(near))[:4])}?"
    if parent and siblings:
        return f"{parent} has {join(sorted(siblings.values()), 'and')}."
    return f"choose {join(sorted({path.partition('.')[0] for path in last}))}."


def join(names: Sequence[str], word: str = "or") -> str:
    """Return names as a list of a sentence: ``a, b or c``."""
    return ", ".join(names[:-1]) + f" {word} " * (len(names) > 1) + names[-1] if names else "another"


def list_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield all keys of a config, and the groups of its parts with their packages."""
    if not isinstance(node, DictConfig):
        return
    for key in map(str, node):
        path = f"{prefix}{key}"
        yield path
        if key == "_target_" and prefix.count(".") > 1:
            yield f"{str(node._get_node(key)).split('.')[1]}@{prefix[:-1]}"  # a part: fusion@model.fusions.gate
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from list_keys(node._get_node(key), f"{path}.")


def select(config: DictConfig, key: str) -> Any:
    """Return the value of a key, ``None`` where there is none yet."""
    try:
        return OmegaConf.select(config, key, default=None)
    except OmegaConfBaseException:  # an interpolation of a value that is not there yet
        return None


def is_choice(override: Override) -> bool:
    """Return true if an override chooses a file of a group, and is no sweep."""
    return (Path(config_dir()) / override.name).is_dir() and not override.is_sweep
