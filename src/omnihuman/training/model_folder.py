"""Model folders: finished runs and converted checkpoints, read from disk."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from omegaconf import DictConfig, OmegaConf

from omnihuman import gate
from omnihuman.build import build, prune, register_resolvers
from omnihuman.model.omni import OmniModel
from omnihuman.nn.parameters import cast_parameters
from omnihuman.training.run_search import check_model_folder
from omnihuman.training.runs import Run
from omnihuman.training.weights import copy_tensors, load_weights, read_dtype

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")


def read_config(folder: Path) -> DictConfig:
    """Return the config of a model folder, checked and resolved; its key ``folder`` is the folder's path.

    Raises:
        ValueError: the folder contains no finished run and no converted checkpoint, or the gate refuses its config.
    """
    check_model_folder(folder)
    register_resolvers()  # the config contains interpolations of them
    config = gate.read_config(folder / "config.yaml", folder.absolute())
    if "model" not in config or "data" not in config:
        raise ValueError(f"{folder / 'config.yaml'} has no keys model and data: {folder} is no model folder.")
    return config


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
    config: DictConfig, weights: Path, without: Sequence[str] = (), allow_new: bool = False, dtype: str | None = None
) -> tuple[OmniModel, set[str]]:
    """Return the model of a config with the weights of a file, and the names of the loaded parameters.

    Where no part of the config has weights of its own, the file must hold all parameters, and none is initialized at
    random before.

    Args:
        config: of the model.
        weights: a safetensors file.
        without: patterns of names in the file that are not loaded.
        allow_new: parameters that the file lacks are initialized as in a new model instead of raising.
        dtype: of the parameters; ``saved`` for the dtype of the file if it has one only; ``None`` for the config's.

    Raises:
        ValueError: the weights do not fit the model, or parameters are missing.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if _has_weights(prune(plain)):
        model: OmniModel = build(plain)
        names = set(load_weights(model, weights, without=without).loaded)
        if dtype not in (None, "saved"):
            cast_parameters(model, getattr(torch, str(dtype)))
        return model, names
    with init_empty_weights(include_buffers=False):
        model = build(plain)
    model.llm.model.tie_weights()  # building without memory has untied them
    if dtype == "saved":
        dtype = read_dtype(weights)
    if dtype is not None:
        cast_parameters(model, getattr(torch, dtype))
    names = set(load_weights(model, weights, without=without).loaded)
    missing = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if missing and not allow_new:
        raise ValueError(
            f"{weights}: {len(missing)} parameters are missing, the first {missing[:3]}, and their parts have no "
            "`weights` in the config: was the folder saved with other parts?"
        )
    if missing:
        log.info("%s lacks %d parameters, which are new: %s ...", weights, len(missing), ", ".join(missing[:3]))
        _initialize_parameters(model, plain, missing)
    return model, names


def _initialize_parameters(model: OmniModel, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Set the named parameters, which have no memory, to the values of a new model of the config."""
    initial = dict(build(config).named_parameters())
    copy_tensors(model, [(name, initial[name].data) for name in names])


def _has_weights(node: Any) -> bool:
    """Return true if a part of a config loads weights of its own, as a run does for what it did not train."""
    if not isinstance(node, Mapping):
        return False
    return node.get("weights") is not None or any(_has_weights(child) for child in node.values())
