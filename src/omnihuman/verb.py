"""Hydra programs behind ``python -m omnihuman.<verb>``, which print a user's mistakes in one line."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from omnihuman.build import check_sizes, config_dir, register_resolvers
from omnihuman.overrides import quote_argument

PATH_KEYS = ("run", "base", "variant")
"""Keys whose value may be a folder with ``=`` in its name, as sweeps and ``base=`` create them."""


def verb(name: str, *text_keys: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn a function of the config ``conf/<name>.yaml`` into a program.

    A mistake of the user (a ``ValueError``) ends the program with its message alone; ``HYDRA_FULL_ERROR=1`` prints the
    traceback.

    Args:
        name: of the root config.
        text_keys: keys whose value is free text, in which commas, brackets and quotes have no meaning to Hydra.
    """
    register_resolvers()

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @hydra.main(config_path=config_dir(), config_name=name, version_base="1.3")
        @wraps(function)
        def program(config: DictConfig) -> Any:
            return _run(function, config)

        @wraps(function)
        def main() -> None:
            sys.argv[1:] = [quote_argument(argument, text_keys, PATH_KEYS) for argument in sys.argv[1:]]
            program()

        return main

    return decorate


def _run(function: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    try:
        check_sizes(HydraConfig.get().overrides.task)
        return function(config)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        _exit_silently(141)
    except KeyboardInterrupt:
        _exit_silently(130)
    except (ValueError, OSError, OmegaConfBaseException, InstantiationException) as error:
        # in a sweep Hydra prints which cell failed, so the error must reach it
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        cause = error.__cause__ if isinstance(error, InstantiationException) else None
        sys.stdout.flush()
        sys.exit(f"error: {cause or error}")


def _exit_silently(code: int) -> NoReturn:
    """Exit with the code that shells expect of a signal, without writing to a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
