"""Checks of a command line against the config that it composes, before anything heavy is imported."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from omnihuman.build import compose_config
from omnihuman.config_files import config_dir, find_comment, find_example, list_choices, list_defaults, read_file
from omnihuman.gate import KINDS, find_target
from omnihuman.overrides import Override, parse_overrides
from omnihuman.training.run_search import check_model_folder, find_run_folder

FREE_TYPES = ("trainer.devices", "trainer.precision")
"""Keys of other programs, which take values of several types."""

FREE_NODES = ("trainable",)
"""Nodes whose keys are the user's own."""

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
CURES = {
    "trainer.logger": "choose a group: logger=csv (nothing besides metrics.csv), logger=tensorboard, logger=wandb",
    "trainer.callbacks": "choose a group: callback=early_stopping, or callback=[early_stopping,ema]",
    "trainer.accumulate_grad_batches": "it follows from recipe.batch_size (samples of an optimizer step) and "
    "recipe.max_tokens (tokens of a packed sequence); set these",
    "trainer.plugins": "set trainer.precision and trainer.strategy",
    "trainer.use_distributed_sampler": "the data shares its samples between ranks itself",
    "trainer.enable_model_summary": "the table of parts is always printed",
    "trainer.log_every_n_steps": "every step is logged",
    "optimizer.lr": "learning rates are values of trainable; set recipe.lr",
}
"""Keys of other programs that the program sets itself -> the cure."""

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

RUN_VERBS = ("generate", "chat", "serve", "evaluate", "export")
"""Verbs that load the model of ``run=``."""

LAZY_NODES = {"report": "benchmark"}
"""Verb -> the node of which it reads only the target."""

MAX_OPTIONS = 6
"""Choices that a message lists in full."""


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
    check_types(texts, root)
    check_missing(config, root)
    check_paths(texts, config, root)
    if root in RUN_VERBS:
        check_model_folder(find_run_folder(config))
    with suppress(InterpolationToMissingValueError):  # of a part that is not built
        OmegaConf.to_container(config, resolve=True)


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
        is_choice = _is_choice(override)
        if not is_choice and not _is_read(override, root, config):
            raise ValueError(f"{override}: omnihuman {root} does not read {override.key}; --help lists its keys.")
        if override.root == "hydra" or (is_choice and not (override.is_new and override.package)):
            continue
        choices = [other for other in texts if other != override.text and _is_choice(*parse_overrides([other]))]
        if override.is_delete:
            defaults = compose_config(choices, root)
            if not is_choice and _find_owner(defaults, override.key) is None and not override.is_below(*FREE_NODES):
                raise ValueError(f"{override}: {override.key} is always read; give it a value: {override.key}=...")
        elif override.is_new:
            place = _find_new(compose_config(choices, root), override.key)
            reason = place and _find_fault(*place, config)
            if reason:
                raise ValueError(f"{override}: {reason}")


def _is_read(override: Override, root: str, config: DictConfig) -> bool:
    """Return false for a value of a node that a verb has without reading it: a size sets keys of the training."""
    places = [entry.package for entry in list_defaults(root)]
    for name in (root, *read_file(root).bases):
        places += [entry.key for entry in read_file(name).entries]
    if override.root == "hydra" or override.is_new or not places:
        return True
    if override.is_below(LAZY_NODES.get(root, "hydra")):
        return False
    is_known = any(place.partition(".")[0] == override.root for place in places)
    return is_known or f"${{{override.root}" in str(OmegaConf.to_container(config))


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
    known = list(dict.fromkeys(keys))
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
    config = compose_config([str(override) for override in overrides if _is_choice(override)], root)
    for override in values:
        default, value = select(config, override.key), override.parsed_value
        if isinstance(value, str) and "${" in value:
            continue
        if expected := _find_mismatch(default, value):
            raise ValueError(f"{override}: expected {expected}, such as {override.key}={_write(default, value)}.")


def _is_choice(override: Override) -> bool:
    return (Path(config_dir()) / override.name).is_dir() and not override.is_sweep


def _is_plain_value(override: Override) -> bool:
    if override.is_delete or override.is_sweep or _is_choice(override) or override.is_new:
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
    return str(default).lower() if isinstance(default, bool) else f"{default}"


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
                near = get_close_matches(Path(path).name, _list_names(Path(path).expanduser().parent), 1, 0.5)
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
