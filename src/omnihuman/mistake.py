"""Mistakes of a command line or a config, in one line that names the key and the cure."""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationToMissingValueError, OmegaConfBaseException

from omnihuman.build import compose_config
from omnihuman.keys import CURES, MAX_OPTIONS, join, list_keys, select, suggest
from omnihuman.values import describe_missing

MISTAKES = (ValueError, OSError, OmegaConfBaseException, HydraException)
"""Errors of a command line, a config or a file: their message is enough."""

MEMORY_SIGNS = ("DefaultCPUAllocator", "out of memory", "bad_alloc", "ALLOC_FAILED")
"""Parts of messages of torch about a device without enough memory."""

MEMORY_CURES = {
    "recipe.max_tokens": "lower recipe.max_tokens ({value}) or data.num_frames",
    "recipe.activation_checkpointing": "set recipe.activation_checkpointing=true",
    "trainer.strategy": "shard over several GPUs with trainer=fsdp",
    "batch_size": "lower batch_size ({value})",
    "max_tokens": "lower max_tokens ({value})",
    "dtype": "set dtype=bfloat16",
}
"""Key that a config may have -> how to need less memory."""

HUB_SIGNS = ("huggingface.co", "not a valid model identifier", "Repo id must")
"""Parts of messages of transformers about weights that it cannot find, which do not name the weights."""

HYDRA_KEY = re.compile(r"Could not (override|delete|append)[^']*'([^'=]+)")
"""Hydra's messages about a key or group, which go on with advice to add it."""


def explain(error: BaseException, arguments: Sequence[str], root: str | None) -> str | None:
    """Return the message of a mistake, in one line; ``None`` for an error of the program.

    Args:
        error: of the program.
        arguments: of the command line.
        root: name of the root config, ``None`` for a program without one.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if memory := _find_memory_error(error):
        return _explain_memory(memory, arguments, root)
    is_lightning = type(error).__name__ == "MisconfigurationException"  # its import takes seconds
    if not isinstance(error, MISTAKES) and not is_lightning:
        return None
    if isinstance(error, HydraException) and (message := _explain_hydra(error, arguments, root)):
        return message
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        key = _find_missing(str(error).partition("\n")[0].rpartition(" ")[2], arguments, root)
        return describe_missing(key, root)
    if any(sign in str(error) for sign in HUB_SIGNS) and (names := _find_hub_names(arguments, root)):
        return f"{names}: no such folder, and no model of the hub that is cached or can be reached; name a folder."
    message = str(error)
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        error = error.__cause__
        message = f"{message}: {error}".replace("\n", " ", 1).partition("\n")[0]
    if isinstance(error, OmegaConfBaseException):
        message = message.partition("\n    full_key")[0]  # details of a key
        if isinstance(error, InterpolationKeyError):
            message = f"{error.full_key} refers to a key that is not there: {message}"
    message = message.partition("\nOriginal Traceback")[0]  # of a process that decodes
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())


def _explain_hydra(error: HydraException, arguments: Sequence[str], root: str | None) -> str | None:
    """Return the message of an error of Hydra that is about one argument."""
    message = str(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    if isinstance(error, OverrideParseException):
        reason = message.partition("\n")[0]
        return f"{error.override!r} is no override ({reason}): write key=value, and quote a value that has spaces."
    if message.startswith("Ambiguous value for argument '"):
        override = message.partition("'")[2].partition("'\n")[0]
        return f"{override} has several values: add -m to run each of them, or write a list [a,b] or a text 'a,b'."
    if message.startswith("Error resolving interpolation '${size}'"):
        package = message.rpartition("@")[2]
        return f"+...@{package}=: a command line adds no part with overlays of sizes; write a yaml for conf/model."
    match = HYDRA_KEY.search(message)
    if match is None or root is None:
        return None
    if match[2] in CURES:
        return f"{match[2]}: {CURES[match[2]]}."
    if match[1] == "append":
        return f"{match[2]} is in the config already: write {match[2]}=... without the +."
    return _explain_key(match[2], arguments, root)


def _find_memory_error(error: BaseException | None) -> BaseException | None:
    """Return the error of a device without enough memory among an error and its causes."""
    while error is not None:
        is_torch = isinstance(error, RuntimeError) and any(sign in str(error) for sign in MEMORY_SIGNS)
        if is_torch or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return error
        error = error.__cause__
    return None


def _explain_memory(error: BaseException, arguments: Sequence[str], root: str | None) -> str:
    match = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
    message = f"out of memory{f' at {match[1]}' if match else ''}"
    cures = []
    config = _compose(arguments, root)
    for key, cure in MEMORY_CURES.items():
        value = select(config, key)
        if value is not None or key in config:
            cures.append(cure.format(value=value))
    if root == "train":
        cures.append(f"forecast it with omnihuman plan {shlex.join(arguments)}")
    return f"{message}: {join(cures)}." if cures else f"{message}."


def _explain_choice(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [str(option) for option in error.options or ()]
    near = get_close_matches(name, options, 3, 0.5)
    if not near or len(options) <= MAX_OPTIONS:
        near = options
    return f"{group}={name}: there is no such choice of conf/{group}; choose {join(near)}."


def _explain_key(key: str, arguments: Sequence[str], root: str) -> str:
    """Return the message about a key or group that a command line changes and the config does not have."""
    remaining, typed = list[str](), key
    for argument in arguments:
        if _is_about(argument, key):
            typed = argument
        elif "=" in argument and not argument.startswith("-"):
            remaining.append(argument)
    return f"{typed}: there is no key {key}; {suggest(key, [*_compose_keys(remaining, root), '+experiment'])}"


def _find_missing(name: str, arguments: Sequence[str], root: str | None) -> str:
    """Return the whole path of a key without a value: an error names its last part, where a part was built alone."""
    paths = []
    if root is not None:
        paths = [path for path in _compose_keys(arguments, root) if path.rpartition(".")[2] == name.rpartition(".")[2]]
    missing = [path for path in paths if path.endswith(name)]
    return missing[0] if len(missing) == 1 else name


def _find_hub_names(arguments: Sequence[str], root: str | None) -> str:
    """Return the keys and values of weights and tokenizers that are no folders."""
    config = _compose(arguments, root)
    names = []
    for path in list_keys(config):
        value = select(config, path) if path.endswith((".weights", ".tokenizer")) else None
        if isinstance(value, str) and not Path(value).is_dir():
            names.append(f"{path}={value}")
    return ", ".join(names[:MAX_OPTIONS])


def _is_about(argument: str, key: str) -> bool:
    return argument.lstrip("+~").partition("=")[0] == key


def _compose_keys(arguments: Sequence[str], root: str) -> list[str]:
    """Return all keys of the config that a command line composes, and the groups with their packages."""
    return list(list_keys(_compose(arguments, root)))


def _compose(arguments: Sequence[str], root: str | None) -> DictConfig:
    """Return the config of a command line; without its arguments where they have one more mistake."""
    if root is None:
        return OmegaConf.create()
    try:
        return compose_config([argument for argument in arguments if "=" in argument], root)
    except (HydraException, OmegaConfBaseException, ValueError):
        return compose_config([], root)
