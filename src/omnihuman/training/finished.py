"""What lies in a model folder: a finished run, or an official checkpoint that was converted."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, prune, register_resolvers
from omnihuman.model.omni import OmniModel
from omnihuman.training.runs import Run
from omnihuman.training.weights import dtype_of, fill, load_weights

log = logging.getLogger(__name__)

BOUND = ("num_frames", "markers", "separator", "supervise_newline", "face", "missing")
"""Data options that belong to a model: it reads what it was trained to read."""


def read_config(folder: Path) -> DictConfig:
    """The config of a model folder; ``folder`` in it is where it lies.

    Raises:
        ValueError: the folder holds no finished run and no converted checkpoint.
    """
    if (folder / "config.json").is_file() and not (folder / "config.yaml").is_file():
        source = "omnihuman" if '"omnihuman"' in (folder / "config.json").read_text() else "humanomni"
        raise ValueError(
            f"{folder} is in Hugging Face form; make a model folder of it: python -m omnihuman.convert source={source} "
            f"path={folder} out={folder.absolute().name}_ours"
        )
    if not Run(folder, "").weights.is_file() or not (folder / "config.yaml").is_file():
        runs = {path.parent.name for path in folder.parent.glob("*/weights.safetensors")}
        raise ValueError(
            f"{folder} holds no finished run (its parent holds {sorted(runs) or 'none'}); train it: "
            f"python -m omnihuman.train +experiment={folder.name} size={folder.parent.name}"
        )
    register_resolvers()  # the config holds what they resolve
    config = OmegaConf.load(folder / "config.yaml")
    if not isinstance(config, DictConfig) or "model" not in config or "data" not in config:
        raise ValueError(f"{folder / 'config.yaml'} says no model and data: it is no model folder that can be asked.")
    config.folder = str(folder.absolute())
    return config


def load_model(
    folder: Path,
    *,
    merge_lora: bool = False,
    dtype: str | None = None,
    change: Callable[[DictConfig], DictConfig] | None = None,
) -> tuple[DictConfig, OmniModel]:
    """The config and the model of a model folder, on the CPU; nothing of it learns.

    Args:
        folder: of a finished run or a converted checkpoint.
        merge_lora: fold LoRA into the weights.
        dtype: of its parameters (``float16``, ``bfloat16``, ``float32``); ``None`` for what the folder holds all of
            them in, and otherwise leaves what they are.
        change: what is to be different from the folder's config.

    Raises:
        ValueError: the folder, the weights or the dtype does not hold.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: choose from {', '.join(DTYPES)}.")
    config = read_config(folder) if change is None else change(read_config(folder))
    model, _ = filled(config.model, Run(folder, "").weights, dtype=dtype or "saved")
    if merge_lora:
        model.llm.merge_lora()
    return config, model.requires_grad_(False).eval()


DTYPES = ("float32", "bfloat16", "float16")


def filled(
    config: DictConfig, weights: Path, without: Sequence[str] = (), new: bool = False, dtype: str | None = None
) -> tuple[OmniModel, set[str]]:
    """The model of a config with the weights of a file, and the names that came from it.

    Where no part names weights of its own the file holds all of them: nothing is drawn at random first.

    Args:
        config: of the model.
        weights: the file.
        without: patterns of names in the file that are not wanted.
        new: parts may be new, which begin as they always do.
        dtype: of the parameters; ``saved`` is that of the file where it holds all of them in one; ``None`` is what the
            config says.

    Raises:
        ValueError: the weights do not fit the model, or lack what nothing else gives.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if _names_weights(prune(plain)):
        whole: OmniModel = build(plain)
        loaded = set(load_weights(whole, weights, without=without).loaded)
        _cast(whole, None if dtype == "saved" else dtype)
        return whole, loaded
    with init_empty_weights(include_buffers=False):
        model: OmniModel = build(plain)
    model.llm.model.tie_weights()  # which building without memory has undone
    _cast(model, dtype_of(weights) if dtype == "saved" else dtype)
    loaded = set(load_weights(model, weights, without=without).loaded)
    missing = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if missing and not new:
        raise ValueError(
            f"{weights}: {len(missing)} parameters are not there, the first {missing[:3]}, and the config says no "
            "`weights` of their part: was the folder made with other parts?"
        )
    if missing:
        whole = build(plain)
        log.info("%s lacks %d parameters, which begin anew: %s ...", weights, len(missing), ", ".join(missing[:3]))
        fill(model, {name: tensor.data for name, tensor in whole.named_parameters() if name in set(missing)})
    return model, loaded


def _cast(model: OmniModel, dtype: str | None) -> None:
    """Give parameters a dtype; buffers, such as the angles of positions, keep their precision."""
    if dtype is not None:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype))


def _names_weights(node: Any) -> bool:
    """Whether a part below has weights of its own: what a stage did not train comes from there."""
    if isinstance(node, Mapping):
        return node.get("weights") is not None or any(_names_weights(inner) for inner in node.values())
    return False


def rebase(config: DictConfig, overrides: Sequence[str]) -> None:
    """Let a stage start from a model folder (``base``): its parts, its sizes, and its weights in the parents' place.

    What the command line says about parts of the model or about the data still holds.

    Raises:
        ValueError: the folder is none, or the command line asks for another model.
    """
    if config.get("base") is None:
        return
    folder = Path(str(config.base)).expanduser()
    base = read_config(folder)
    keys = [_key(override) for override in overrides]
    if "model" in keys:
        raise ValueError(f"base={folder} brings its own model: leave model= out, or base=.")
    plain: Any = OmegaConf.to_container(base, resolve=True)
    said = config.copy()
    config.model = plain["model"]
    for key in (key for key in keys if key.startswith("model.")):
        OmegaConf.update(config, key, OmegaConf.select(said, key), merge=False, force_add=True)
    for key in BOUND:
        if key in plain["data"] and f"data.{key}" not in keys and not (key == "num_frames" and "frames" in keys):
            OmegaConf.update(config, f"data.{key}", plain["data"][key], merge=False, force_add=True)
    config.frames = config.data.num_frames
    others = [key for key in keys if key.count(".") == 2] + [f"model.{part}" for part in config.model.get("drop") or ()]
    without = [f"{key.removeprefix('model.')}.*" for key in others if key.startswith("model.")]
    config.init_from = [{"folder": str(folder), "without": without}]
    config.variant = config.variant or f"base={folder.absolute().name}"


def _key(override: str) -> str:
    """What an override changes: ``model.fusions.gate`` of ``fusion@model.fusions.gate=moe``."""
    key = override.split("=", 1)[0].lstrip("+~")
    return key.partition("@")[2] if "@" in key else key
