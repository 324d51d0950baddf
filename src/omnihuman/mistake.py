"""Mistakes of a command line or a config, in one line that names the key and the cure."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, ListConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from omnihuman.build import compose_config, config_dir
from omnihuman.overrides import Override, parse_overrides

MISTAKES = (ValueError, OSError, OmegaConfBaseException, HydraException)
"""Errors of a command line, a config or a file: their message is enough."""

NOT_OVERRIDDEN = "Could not override '"
"""Beginning of Hydra's message about an unknown key or group."""

FREE_KEYS = ("hydra", "trainer.devices", "trainer.precision")
"""Keys of other programs, which take values of several types."""

HUB_SIGNS = ("huggingface.co", "not a valid model identifier", "Repo id must")
"""Parts of messages of transformers about weights that it cannot find, which do not name the weights."""

MAX_OPTIONS = 6
"""Choices that a message lists in full."""


def explain(error: BaseException, arguments: Sequence[str], root: str | None) -> str | None:
    """Return the message of a mistake, in one line; ``None`` for an error of the program.

    Args:
        error: of the program.
        arguments: of the command line.
        root: name of the root config, ``None`` for a program without one.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    is_lightning = type(error).__name__ == "MisconfigurationException"  # its import takes seconds
    if not isinstance(error, MISTAKES) and not is_lightning:
        return None
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    if isinstance(error, OverrideParseException):
        reason = str(error).partition("\n")[0]
        return f"{error.override!r} is no override ({reason}): write key=value, and quote a value that has spaces."
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        key = _find_missing(str(error).partition("\n")[0].rpartition(" ")[2], arguments, root)
        return f"{key} has no value: add {key}=..."
    if str(error).startswith("Ambiguous value for argument '"):
        override = str(error).partition("'")[2].partition("'\n")[0]
        return f"{override} has several values: add -m to run each of them, or write a list [a,b] or a text 'a,b'."
    if isinstance(error, ConfigCompositionException) and str(error).startswith(NOT_OVERRIDDEN) and root:
        return _explain_key(str(error), arguments, root)
    if any(sign in str(error) for sign in HUB_SIGNS) and (names := _find_hub_names(arguments, root)):
        return f"{names}: no such folder, and no model of the hub that is cached or can be reached; choose another."
    message = str(error).partition("\n    full_key")[0]  # OmegaConf's details of a key
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        message = f"{message}: {error.__cause__}".partition("\n")[0]
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())


def _explain_choice(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [str(option) for option in error.options or ()]
    near = get_close_matches(name, options, 3, 0.5)
    if not near or len(options) <= MAX_OPTIONS:
        near = options
    return f"{group}={name}: there is no such choice of conf/{group}; choose {_join(near)}."


def _explain_key(message: str, arguments: Sequence[str], root: str) -> str:
    """Return the message about a key or group that a command line overrides and the config does not have."""
    key = message.removeprefix(NOT_OVERRIDDEN).partition("'")[0]
    remaining, typed = list[str](), key
    for argument in arguments:
        if _is_about(argument, key):
            typed = argument
        elif "=" in argument and not argument.startswith("-"):
            remaining.append(argument)
    keys = [*_list_keys(remaining, root), "+experiment"]
    name = key.rpartition(".")[2]
    near = [candidate for candidate in keys if candidate.partition("@")[0] == key]
    near += [candidate for candidate in keys if candidate.rpartition(".")[2] == name and "@" not in candidate]
    near += get_close_matches(f"+{key}" if f"+{key}" in keys else key, keys, 3, 0.6)
    known = list(dict.fromkeys(near))[:4] or sorted({candidate.partition(".")[0] for candidate in keys})
    return f"{typed}: there is no key {key}; choose {_join(known)}."


def _find_missing(name: str, arguments: Sequence[str], root: str | None) -> str:
    """Return the whole path of a key without a value: an error names its last part, where a part was built alone."""
    paths = []
    if root is not None:
        paths = [path for path in _list_keys(arguments, root) if path.rpartition(".")[2] == name.rpartition(".")[2]]
    missing = [path for path in paths if path.endswith(name)]
    return missing[0] if len(missing) == 1 else name


def _find_hub_names(arguments: Sequence[str], root: str | None) -> str:
    """Return the keys and values of weights and tokenizers that are no folders."""
    if root is None:
        return ""
    config = compose_config([argument for argument in arguments if "=" in argument], root)
    names = []
    for path in _flatten(config, ""):
        value = _select(config, path) if path.endswith((".weights", ".tokenizer")) else None
        if isinstance(value, str) and not Path(value).is_dir():
            names.append(f"{path}={value}")
    return ", ".join(names[:MAX_OPTIONS])


def _is_about(argument: str, key: str) -> bool:
    return argument.lstrip("+~").partition("=")[0] == key


def _list_keys(arguments: Iterable[str], root: str) -> Iterator[str]:
    """Yield all keys of the config that a command line composes, and the groups with their packages."""
    try:
        config = compose_config(list(arguments), root)
    except (HydraException, OmegaConfBaseException, ValueError):  # it has one more mistake
        config = compose_config([], root)
    yield from _flatten(config, "")


def _flatten(node: Any, prefix: str) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        return
    for key in map(str, node):
        path = f"{prefix}{key}"
        yield path
        if key == "_target_" and prefix.count(".") > 1:
            yield f"{str(node._get_node(key)).split('.')[1]}@{prefix[:-1]}"  # a part: fusion@model.fusions.gate
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _flatten(node._get_node(key), f"{path}.")


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1] if names else "another"


def check_types(arguments: Sequence[str], root: str) -> None:
    """Check that values have the type of what they replace: ``overwrite=no`` is a text, which counts as true.

    Args:
        arguments: overrides of the command line.
        root: name of the root config.

    Raises:
        ValueError: a text stands for a number, a truth value or a list; or a number for a truth value.
    """
    overrides = parse_overrides(arguments)
    values = [override for override in overrides if _is_plain_value(override)]
    if not values:
        return
    config = compose_config([str(override) for override in overrides if _is_choice(override)], root)
    for override in values:
        default = _select(config, override.key)
        value = override.parsed_value
        if isinstance(value, str) and "${" in value:
            continue
        if expected := _find_mismatch(default, value):
            raise ValueError(f"{override}: expected {expected}, such as {override.key}={_write(default, value)}.")


def _is_choice(override: Override) -> bool:
    return (Path(config_dir()) / override.name).is_dir() and not override.is_sweep


def _is_plain_value(override: Override) -> bool:
    if override.is_delete or override.is_sweep or _is_choice(override):
        return False
    return not override.is_below(*FREE_KEYS) and not override.text.startswith("+")


def _select(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key, default=None)
    except OmegaConfBaseException:  # an interpolation of a value that is not there yet
        return None


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
