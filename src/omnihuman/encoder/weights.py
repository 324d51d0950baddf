"""Checks on the weights of an encoder: sizes agree, and no parameter is missing or unknown."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from omnihuman.nn.deferred import active_recording
from omnihuman.nn.finite import check_finite


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' bars and its report of keys: ``check_report`` raises where something is wrong."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def check_sizes(weights: str, config: Any, sizes: Mapping[str, Any]) -> None:
    """Compare the sizes of the preset with those of the weights' own config.

    Raises:
        ValueError: they differ.
    """
    differences = []
    for name, size in sizes.items():
        actual = getattr(config, name)
        if size != actual:
            differences.append(f"{name}: {size} in the preset, {actual} in the weights")
    if differences:
        raise ValueError(
            f"the sizes do not fit the weights {weights!r}: {', '.join(differences)}. Choose the preset of these "
            "weights."
        )


def check_report(weights: str, info: Mapping[str, Any], dropped: tuple[str, ...] = ()) -> None:
    """Check the report of ``from_pretrained(..., output_loading_info=True)``.

    Args:
        weights: their source, for the error.
        info: transformers' report.
        dropped: patterns of keys in the weights that are not loaded on purpose.

    Raises:
        ValueError: a parameter is missing in the weights or has another shape, or the weights contain an unknown one.
    """
    unknown = [key for key in info["unexpected_keys"] if not _matches(key, dropped)]
    problems = {"missing": info["missing_keys"], "unknown": unknown, "of another shape": info["mismatched_keys"]}
    listed = []
    for kind, keys in problems.items():
        if keys:
            listed.append(f"{len(keys)} {kind} (such as {min(map(str, keys))})")
    if listed:
        raise ValueError(
            f"the weights {weights!r} do not fit the encoder: {', '.join(listed)}. Choose the weights of its preset."
        )


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def read_folder(weights: str, sizes: Mapping[str, Any], official: str) -> dict[str, Tensor]:
    """Read ``model.safetensors`` of a folder under our names, with its sizes in ``config.json``.

    Args:
        weights: the folder.
        sizes: of the preset.
        official: value of ``official=`` whose conversion writes such a folder, for the message.

    Raises:
        ValueError: it is no such folder, or its sizes differ from ``sizes``.
    """
    path = Path(weights)
    if not (path / "model.safetensors").is_file():
        raise ValueError(
            f"{official}: weights={weights} is no folder with model.safetensors. Convert the official file: "
            f"omnihuman convert official={official} path=<file or hub id> out={weights}"
        )
    check_sizes(weights, SimpleNamespace(**json.loads((path / "config.json").read_text())), sizes)
    return load_file(path / "model.safetensors")


def load_parameters(
    encoder: nn.Module, weights: str, state: Mapping[str, Tensor], dropped: tuple[str, ...] = ()
) -> None:
    """Load all parameters of an encoder; buffers are computed and not part of any weights.

    Raises:
        ValueError: see ``check_report``; or a parameter is not finite.
    """
    parameters = dict(encoder.named_parameters())
    mismatched = [key for key in parameters.keys() & state.keys() if parameters[key].shape != state[key].shape]
    info = {
        "missing_keys": parameters.keys() - state,
        "unexpected_keys": state.keys() - parameters,
        "mismatched_keys": mismatched,
    }
    check_report(weights, info, dropped)
    recording = active_recording()
    for key, parameter in parameters.items():
        if recording is not None:
            recording.assign(parameter, state[key], weights)
            continue
        check_finite(weights, key, state[key])
        parameter.data.copy_(state[key])
