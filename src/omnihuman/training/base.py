"""``base=``: stages that start from a model folder."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import PART_GROUPS, has_model, prune
from omnihuman.modality import View
from omnihuman.overrides import parse_overrides
from omnihuman.training.run_search import read_config

log = logging.getLogger(__name__)

MODEL_DATA_KEYS = (
    "num_frames",
    "sampling",
    "markers",
    "separator",
    "supervise_newline",
    "time_instruction",
    "tiles",
    "instruction",
    "face",
    "missing",
)
"""Data options that belong to a whole model: its inputs must be built as in its training."""

RECIPE_KEYS = ("inputs", "output", "condition", "activation_checkpointing", "compile", "dtype")
"""Options of a part that are not its own: how an experiment wires and trains it."""


def rebase(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the config of a stage that starts from the model folder ``base``; without ``base``, the config itself.

    The folder gives weights and sizes of the parts that it has; parts, wiring, LoRA, what trains and the data stay the
    experiment's. Parents whose training the folder contains (its ``stages``) are replaced by it, and the others start
    from it, too. An experiment without a model of its own takes the whole model.

    Args:
        config: the composed config, which stays as it is.
        overrides: the command line; what it says about a part counts more than the folder.

    Raises:
        ValueError: ``base`` is no model folder, or no part of it fits; an experiment without a model of its own has no
            ``base``.
    """
    if config.get("base") is None:
        if "_target_" not in config.model:
            raise ValueError(f"+experiment={config.name} trains the model of base=: add base=<model folder>.")
        return config
    folder = Path(str(config.base)).expanduser()
    base: Any = OmegaConf.to_container(read_config(folder, is_portable=True))
    keys = [override.key for override in parse_overrides(overrides)]
    rebased = config.copy()
    if has_model(config.name):
        without = _take_parts(rebased, base["model"], keys)
        stages = base.get("stages") or []
        parents = [entry for entry in config.init_from if entry.get("run") not in stages]
    else:
        without, parents = _take_model(rebased, base, keys), []
    if "prompting" in base:  # for official_prompt=true
        OmegaConf.update(rebased, "prompting", base["prompting"], force_add=True)
    rebased.init_from = [{"folder": str(folder), "without": without}, *parents]
    rebased.variant = config.variant or f"base={folder.absolute().name}"
    return rebased


def _take_model(config: DictConfig, base: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Set the whole model of a base and its inputs; return patterns of its parameters that are not loaded."""
    typed = config.model
    config.model = base["model"]
    _apply_typed(config.model, typed, keys)
    for key in MODEL_DATA_KEYS:
        is_overridden = f"data.{key}" in keys or (key == "num_frames" and "frames" in keys)
        if key in base["data"] and not is_overridden:
            OmegaConf.update(config, f"data.{key}", base["data"][key], merge=False, force_add=True)
    if "data.views" not in keys:
        config.data.views = [_join_views(base["data"]["views"])]
    config.frames = config.data.num_frames
    return _build_patterns([*_replaced_parts(keys), *(config.model.get("drop") or ())])


def _take_parts(config: DictConfig, base: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Set the options of the parts that a base has as well; return patterns of its parameters that are not loaded.

    A part of another class stays the experiment's, and so does one that the command line chooses.

    Raises:
        ValueError: there is no such part, or the base has adapters in an LLM that the experiment trains as a whole.
    """
    source = prune(base)
    stage: Any = prune(OmegaConf.to_container(config.model, resolve=True))  # type: ignore[arg-type]
    typed = config.model.copy()
    replaced = _replaced_parts(keys)
    common = []
    for path in list_parts(source):
        part, node = _select(stage, path), _select(source, path)
        if path in replaced or part is None or part["_target_"] != node["_target_"]:
            continue
        recipe = {key: part[key] for key in RECIPE_KEYS if key in part}
        if path == "llm":
            recipe["lora"] = _choose_lora(config, part.get("lora"), node.get("lora"))
        OmegaConf.update(config.model, path, {**node, **recipe}, merge=False, force_add=True)
        common.append(path)
    if not common:
        parts = ", ".join(list_parts(source))
        raise ValueError(f"base={config.base} has no part of +experiment={config.name}, but {parts}.")
    _take_conditions(config, source, stage, common)
    _apply_typed(config.model, typed, keys)
    return _build_patterns(path for path in list_parts(source) if path not in common)


def _choose_lora(config: DictConfig, stage: Any, source: Any) -> Any:
    """Return the LoRA of an LLM: the sizes of the base's where the experiment has some, or trains no LLM.

    Raises:
        ValueError: the experiment trains the whole LLM, and the base has adapters.
    """
    if source is None:
        return stage
    if stage is None and any(str(pattern).startswith("llm") for pattern in config.trainable):
        raise ValueError(
            f"base={config.base} has LoRA adapters, and +experiment={config.name} trains the whole LLM: merge them "
            "(omnihuman export run=<base> lora=merge, convert official=omnihuman), or give model.llm.lora={...}."
        )
    return source


def _take_conditions(
    config: DictConfig, source: Mapping[str, Any], stage: Mapping[str, Any], common: list[str]
) -> None:
    """Wire the conditions of the base's projectors: one that reads the instruction does so in the stage as well."""
    for name, stream in (source.get("conditions") or {}).items():
        if f"projectors.{name}" not in common:
            continue
        OmegaConf.update(config.model, f"conditions.{name}", stream, force_add=True)
        if stream not in stage["encoders"]:
            node = source["encoders"][stream]
            OmegaConf.update(config.model, f"encoders.{stream}", node, merge=False, force_add=True)
            common.append(f"encoders.{stream}")


def _apply_typed(model: DictConfig, typed: DictConfig, keys: Iterable[str]) -> None:
    """Set what the command line says about the model."""
    for key in keys:
        if key.startswith("model."):
            path = key.removeprefix("model.")
            OmegaConf.update(model, path, OmegaConf.select(typed, path), merge=False, force_add=True)


def list_parts(model: Mapping[str, Any]) -> list[str]:
    """Return the paths of the parts of a model.

    >>> list_parts({"encoders": {"video": {}}, "fusions": {}, "llm": {}})
    ['encoders.video', 'llm']
    """
    paths = []
    for group in PART_GROUPS:
        paths += [f"{group}.{name}" for name in model.get(group) or ()]
    return [*paths, "llm"]


def _select(model: Mapping[str, Any], path: str) -> Any:
    group, _, name = path.partition(".")
    return (model.get(group) or {}).get(name) if name else model.get(group)


def _replaced_parts(keys: Iterable[str]) -> list[str]:
    """Return the parts that overrides choose anew.

    >>> _replaced_parts(["seed", "model.fusions.compress", "model.llm", "model.llm.dtype", "model.drop"])
    ['fusions.compress', 'llm']
    """
    paths = [key.removeprefix("model.") for key in keys if key.startswith("model.")]
    return [path for path in paths if path == "llm" or (path.partition(".")[0] in PART_GROUPS and path.count(".") == 1)]


def _build_patterns(paths: Iterable[str]) -> list[str]:
    """Return a pattern of the parameters of every part."""
    return [f"{path}.*" for path in paths]


def _join_views(views: Sequence[str]) -> str:
    """Return one view of all that a model was trained with.

    >>> _join_views(["VF", "A"])
    'VAF'
    """
    letters = "".join(View.parse(view).letters for view in views)
    return str(View.of(letters))
