"""Programs behind ``python -m omnihuman.<verb>``, which print a user's mistakes in one line."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any, NoReturn, TypeVar

import hydra
from hydra._internal import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from omnihuman.build import check_sizes, config_dir, register_resolvers, select_model_of_base
from omnihuman.mistake import explain
from omnihuman.overrides import declare_sweep, quote_argument
from omnihuman.source.root import expand_data_paths
from omnihuman.stop import Interrupted
from omnihuman.usage import HELP, format_usage
from omnihuman.values import check_command_line

PATH_KEYS = ("run", "base", "variant")
"""Keys whose value may be a folder with ``=`` in its name, as sweeps and ``base=`` create them."""

EXTRAS = {
    "curate": "scenedetect",
    "serve": "fastapi gradio prometheus_client pydantic starlette uvicorn",
    "eval": "cn2an ijson jiwer nltk pydantic rapidfuzz scipy sklearn whisper_normalizer zhconv",
    "faces": "cv2 mediapipe",
    "heif": "pillow_heif",
    "judge": "json_repair openai tenacity",
    "wheels": "openpyxl",
    "quantize": "bitsandbytes",
    "ray": "ray",
    "remote": "aiohttp gcsfs s3fs",
}
"""Extra of the package -> the modules that it installs, separated by spaces."""

PLUGINS = {
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "sweep"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "sweep"),
}
"""Override that needs a plugin of Hydra -> its module and the extra that installs it."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def program(name: str) -> Callable[[Callable[[Sequence[str]], Result]], Callable[..., Result | int]]:
    """Turn a function of the command line into a program: without arguments it reads ``sys.argv``.

    A mistake of the user ends the program with its message alone; ``HYDRA_FULL_ERROR=1`` prints the traceback.

    Args:
        name: of the verb and its root config.
    """

    def decorate(function: Callable[[Sequence[str]], Result]) -> Callable[..., Result | int]:
        @wraps(function)
        def main(arguments: Sequence[str] | None = None) -> Result | int:
            command_line = sys.argv[1:] if arguments is None else arguments
            if set(HELP).intersection(command_line):
                print(format_usage(name, _summarize(function), command_line))
                return 0
            command_line = _run(expand_data_paths, command_line, command_line, name)
            return _run(function, command_line, command_line, name)

        return main

    return decorate


def verb(
    name: str, *text_keys: str, extra: str | None = None, names_cells: bool = False, word: str | None = None
) -> Callable[[Callable[[DictConfig], Any]], Callable[..., Any]]:
    """Turn a function of the config ``conf/<name>.yaml`` into a program of Hydra, with the mistakes of ``program``.

    Args:
        name: of the root config.
        text_keys: keys whose value is free text, in which commas, brackets and quotes have no meaning to Hydra.
        extra: of the package that it needs, checked before it starts to work.
        names_cells: a cell of a sweep reads from ``hydra.sweeper.params`` what was swept.
        word: key whose value may be typed alone as the first argument: ``omnihuman bench input``.
    """
    register_resolvers()

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[..., Any]:
        @hydra.main(config_path=config_dir(), config_name=name, version_base="1.3")
        @wraps(function)
        def run_hydra(config: DictConfig) -> Any:
            return _run(_check_and_call, (function, config, extra), HydraConfig.get().overrides.task, name)

        @wraps(function)
        def main(arguments: Sequence[str]) -> None:
            arguments = name_word(arguments, word)
            _check_plugins(arguments)
            _check_options(arguments)
            quoted = [quote_argument(argument, text_keys, PATH_KEYS) for argument in arguments]
            sys.argv[1:] = select_model_of_base(quoted)
            if names_cells:
                sys.argv[1:] = declare_sweep(sys.argv[1:])
            with _raise_errors_of_hydra():
                run_hydra()

        return program(name)(main)

    return decorate


def name_word(arguments: Sequence[str], key: str | None) -> list[str]:
    """Return a command line with the key of its first argument, if that is a word alone.

    >>> name_word(["input", "repeats=3"], "mode"), name_word(["input"], None)
    (['mode=input', 'repeats=3'], ['input'])
    """
    if key is None or not arguments or "=" in arguments[0] or arguments[0].startswith(("-", "~")):
        return list(arguments)
    return [f"{key}={arguments[0]}", *arguments[1:]]


def _check_and_call(call: tuple[Callable[[DictConfig], Result], DictConfig, str | None]) -> Result:
    function, config, extra = call
    overrides = HydraConfig.get().overrides.task
    check_sizes(overrides)
    for module in EXTRAS.get(extra or "", "").split():
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
    check_command_line(overrides, config, str(HydraConfig.get().job.config_name))
    return function(config)


@contextmanager
def _raise_errors_of_hydra() -> Iterator[None]:
    """Let Hydra raise its errors, which it would print in several lines."""
    report = hydra_utils.run_and_report
    hydra_utils.run_and_report = _call
    try:
        yield
    finally:
        hydra_utils.run_and_report = report


def _call(func: Callable[[], Result]) -> Result:
    return func()


def _check_options(arguments: Sequence[str]) -> None:
    """Check the options of Hydra: its own parser prints its usage, and values are no options.

    Raises:
        ValueError: an option is unknown.
    """

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ValueError(f"{message}: a value is written key=value, such as recipe.lr=1e-3; --help lists the keys.")

    parser = hydra_utils.get_args_parser()
    parser.__class__ = Parser
    parser.allow_abbrev = False  # --experiment is none of Hydra's options
    parser.parse_args(list(arguments))


def _summarize(function: Callable[..., Any]) -> str:
    """Return the first line of the docstring of a function's module, as the head of the help."""
    docstring = sys.modules[function.__module__].__doc__ or ""
    return docstring.partition("\n")[0].replace("``", "")


def _check_plugins(arguments: Sequence[str]) -> None:
    for argument in arguments:
        module, extra = PLUGINS.get(argument, (None, None))
        if module is not None and find_spec(f"hydra_plugins.{module}") is None:
            sys.exit(f'error: {argument} needs a plugin that is not installed: pip install "omnihuman[{extra}]"')


def _run(
    function: Callable[[Argument], Result], argument: Argument, command_line: Sequence[str], root: str | None
) -> Result:
    try:
        return function(argument)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        _exit_silently(141)
    except KeyboardInterrupt:
        _exit_silently(130)
    except Interrupted as end:
        print(end, file=sys.stderr)
        sys.exit(end.exit_code)
    except Exception as error:
        message = find_missing_extra(error) or explain(error, command_line, root)
        # in a sweep Hydra prints which cell failed, so the error must reach it
        is_cell = isinstance(argument, tuple) and HydraConfig.get().mode == RunMode.MULTIRUN
        if message is None or is_cell or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stdout.flush()
        sys.exit(f"error: {message}")


def find_missing_extra(error: BaseException) -> str | None:
    """Return the command that installs the package whose absence has caused an error, ``None`` for other errors.

    >>> find_missing_extra(ModuleNotFoundError(name="gradio.themes"))
    'gradio is not installed: pip install "omnihuman[serve]"'
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            module = str(cause.name).partition(".")[0]
            for extra, modules in EXTRAS.items():
                if module in modules.split():
                    return f'{module} is not installed: pip install "omnihuman[{extra}]"'
        cause = cause.__cause__ or cause.__context__
    return None


def _exit_silently(code: int) -> NoReturn:
    """Exit with the code that shells expect of a signal, without writing to a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
