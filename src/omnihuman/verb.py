"""What every ``python -m omnihuman.<verb>`` is: a Hydra program that tells its users' mistakes in one line."""

import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from omnihuman.build import config_dir, register_resolvers

PATHS = ("run", "base", "variant")
"""Keys that may name a folder that a sweep or ``base=`` has named after its overrides, with ``=`` in it."""


def verb(name: str, *texts: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a program of a function that takes the config ``conf/<name>.yaml``.

    What a user wrote wrong (a ``ValueError``) ends it with the message alone; ``HYDRA_FULL_ERROR=1`` shows where.

    Args:
        name: of the root config.
        texts: keys whose value is the user's text: commas, brackets and quotes in it mean nothing to Hydra.
    """
    register_resolvers()

    def decorate(work: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @hydra.main(config_path=config_dir(), config_name=name, version_base="1.3")
        @wraps(work)
        def program(config: DictConfig) -> Any:
            try:
                return work(config)
            except (BrokenPipeError, KeyboardInterrupt) as error:  # nobody reads on, or it was enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(130 if isinstance(error, KeyboardInterrupt) else 141)
            except (ValueError, OSError, OmegaConfBaseException, InstantiationException) as error:
                # a sweep tells which cell failed, and goes through Hydra
                if os.environ.get("HYDRA_FULL_ERROR") == "1" or HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                cause = error.__cause__ if isinstance(error, InstantiationException) else None
                sys.stdout.flush()
                sys.exit(f"error: {cause or error}")

        @wraps(work)
        def main() -> None:
            sys.argv[1:] = [verbatim(argument, texts) for argument in sys.argv[1:]]
            program()

        return main

    return decorate


def verbatim(argument: str, texts: tuple[str, ...]) -> str:
    r"""A command-line argument, quoted for Hydra where its value is free text.

    >>> verbatim("instruction=Who's there?\nfear ,sad", ("instruction",))
    "instruction='Who\\'s there?\nfear ,sad'"
    """
    key, equals, value = argument.partition("=")
    is_text = key in texts or (key in PATHS and "=" in value)
    if not is_text or not equals or value in ("", "null") or (value[0] == value[-1] and value[0] in "'\""):
        return argument
    # quotes end the value, backslashes before them and at the end escape, and ${ begins an interpolation
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'").replace("${", "\\${")
    return f"{key}='{escaped}'"
