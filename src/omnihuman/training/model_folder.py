"""Model folders: finished runs and converted checkpoints, read from disk."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, prune
from omnihuman.model.materialize import materialize
from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import canonical_name
from omnihuman.nn.deferred import Recording
from omnihuman.nn.parameters import cast_parameters
from omnihuman.training.run_search import read_config
from omnihuman.training.runs import Run
from omnihuman.training.weights import load_weights, read_dtype

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")


def load_model(
    folder: Path,
    *,
    merge_lora: bool = False,
    dtype: str | None = None,
    change: Callable[[DictConfig], DictConfig] | None = None,
) -> tuple[DictConfig, OmniModel]:
    """Return the config and the model of a model folder, on the CPU, frozen and in eval mode.

    Args:
        folder: of a finished run or a converted checkpoint.
        merge_lora: merge LoRA adapters into the weights.
        dtype: of the parameters (``float16``, ``bfloat16``, ``float32``); ``None`` for the dtype of the saved weights.
        change: maps the folder's config to the config that is built.

    Raises:
        ValueError: the folder, its weights or the dtype is invalid.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: choose from {', '.join(DTYPES)}.")
    config = read_config(folder)
    if change is not None:
        config = change(config)
    model, _ = build_with_weights(config.model, Run(folder, "").weights, dtype=dtype or "saved")
    if merge_lora:
        model.llm.merge_lora()
    return config, model.requires_grad_(False).eval()


def build_with_weights(
    config: DictConfig,
    weights: Path,
    without: Sequence[str] = (),
    allow_new: bool = False,
    dtype: str | None = None,
    recording: Recording | None = None,
) -> tuple[OmniModel, set[str]]:
    """Return the model of a config with the weights of a file, and the names of the loaded parameters.

    Where no part of the config has weights of its own, the file must hold all parameters. Parameters that are loaded
    are not initialized at random before.

    Args:
        config: of the model.
        weights: a safetensors file, or an index of its shards in its place.
        without: patterns of names in the file that are not loaded.
        allow_new: parameters that the file lacks are initialized instead of raising.
        dtype: of the parameters; ``saved`` for the dtype of the file if it has one only; ``None`` for the config's.
        recording: gets the values of the parameters, which stay without memory; ``None``: they are on the CPU.

    Raises:
        ValueError: the weights do not fit the model, or parameters are missing.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    has_weights = _has_weights(prune(plain))
    if dtype == "saved":
        dtype = None if has_weights else read_dtype(weights)
    values = recording or Recording()
    with values:
        model: OmniModel = build(plain)
        if dtype is not None and not has_weights:
            cast_parameters(model, getattr(torch, dtype))
    values.finish(model)
    names = set(load_weights(model, weights, without=without, recording=values).loaded)
    if dtype is not None:
        cast_parameters(model, getattr(torch, dtype))
    parameters = {name: canonical_name(name) for name, _ in model.named_parameters()}
    missing = [name for name in parameters if parameters[name] not in names]
    if not has_weights:
        _check_missing(weights, missing, allow_new)
        values.forget(parameters.keys() - missing)
    if recording is None:
        materialize(model, values, torch.device("cpu"))
    return model, names


def _check_missing(weights: Path, missing: Sequence[str], allow_new: bool) -> None:
    if missing and not allow_new:
        raise ValueError(
            f"{weights}: {len(missing)} parameters are missing, the first {missing[:3]}, and their parts have no "
            "`weights` in the config: was the folder saved with other parts?"
        )
    if missing:
        log.info("%s lacks %d parameters, which are new: %s ...", weights, len(missing), ", ".join(missing[:3]))


def _has_weights(node: Any) -> bool:
    """Return true if a part of a config loads weights of its own, as a run does for what it did not train."""
    if not isinstance(node, Mapping):
        return False
    return node.get("weights") is not None or any(_has_weights(child) for child in node.values())
