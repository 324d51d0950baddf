"""The graph of a model as plain data that travels with its weights: written for strangers, read as a stranger's."""

import re
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import prune
from omnihuman.encoder.base import Encoder
from omnihuman.fusion.base import Fusion
from omnihuman.llm.causal import CausalLM
from omnihuman.model.omni import OmniModel
from omnihuman.projector.base import Projector

GROUPS: dict[str, type] = {"encoders": Encoder, "projectors": Projector, "early_fusions": Fusion, "fusions": Fusion}
WORDS = "instruction_tokenizer"
"""Folder of the tokenizer that encoders of the instruction read; the language model's lies beside the weights."""

STRANGE = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "kernel_config")
"""Fields of a language model's configuration that name code or files elsewhere."""

PASSING = ("architectures", "transformers_version", "dtype", "torch_dtype", "name_or_path", *STRANGE)
"""Fields of a language model's configuration that say nothing of its shape."""


def graph_of(config: DictConfig, model: OmniModel) -> tuple[dict[str, Any], dict[str, str]]:
    """The config of a model and the model -> its graph, and folder -> source of the tokenizers that belong beside it.

    Nothing in the graph names weights or a place on this machine: sizes that weights had decided stand in it.

    Raises:
        ValueError: the encoders of the instruction have different tokenizers.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    graph = prune(plain)
    tokenizers = {".": str(graph["llm"]["tokenizer"])}
    for name, node in graph["encoders"].items():
        for key in ("weights", "file"):
            node.pop(key, None)
        if "vocab_size" in node and node["vocab_size"] is None:
            reader: Any = model.encoders[name]
            node["vocab_size"] = reader.model.config.vocab_size
        if "tokenizer" in node:
            source = str(node["tokenizer"])
            if tokenizers.setdefault(WORDS, source) != source:
                raise ValueError(
                    f"encoder {name!r} reads the instruction with {source}, another one with {tokenizers[WORDS]}: a "
                    "release holds one tokenizer of the instruction; give them the same."
                )
            node["tokenizer"] = WORDS
    llm = graph["llm"]
    for key in ("weights", "lora", "activation_checkpointing"):
        llm.pop(key, None)
    shape = model.llm.model.config.to_diff_dict()
    shape = {key: value for key, value in shape.items() if key not in PASSING and not key.startswith("_")}
    graph["llm"] = llm | {"tokenizer": ".", "architecture": shape, "dtype": "float32"}
    for group in GROUPS:  # lists: fusions run in their order, and config.json is sorted by its keys
        graph[group] = [{"name": name, **node} for name, node in (graph.get(group) or {}).items()]
    return graph, tokenizers


def opened(graph: Any, folder: Path) -> dict[str, Any]:
    """A graph found in a folder, checked -> a config that ``build`` may have.

    Only classes of this package's own parts are built, each in its place, without weights of their own; tokenizers lie
    in the folder.

    Raises:
        ValueError: the graph holds anything else.
    """
    where = f"{folder / 'config.json'}: graph"
    if not isinstance(graph, dict) or not isinstance(graph.get("llm"), dict):
        raise ValueError(f"{where} is no graph of a model: it was not written by python -m omnihuman.export.")
    _check(where, {key: value for key, value in graph.items() if key not in (*GROUPS, "llm")}, OmniModel)
    checked = {**graph, "llm": _part(f"{where}.llm", graph["llm"], CausalLM, folder)}
    for group, base in GROUPS.items():
        parts = graph.get(group) or []
        if not isinstance(parts, list) or not all(isinstance(node, dict) for node in parts):
            raise ValueError(f"{where}.{group} is no list of parts.")
        names = [node.get("name") for node in parts]
        if len({*map(str, names)}) != len(names) or not all(isinstance(n, str) and n.isidentifier() for n in names):
            raise ValueError(f"{where}.{group} has the names {names}: each part has one of its own, a word.")
        checked[group] = {
            node["name"]: _part(
                f"{where}.{group}.{node['name']}", {k: v for k, v in node.items() if k != "name"}, base, folder
            )
            for node in parts
        }
    return checked


def _part(where: str, node: dict[str, Any], base: type, folder: Path) -> dict[str, Any]:
    """One part, checked; its tokenizer as a path."""
    _check(where, node, base)
    for key in ("weights", "file", "lora"):
        if isinstance(node.get(key), str | Mapping):
            raise ValueError(f"{where}.{key} is {node[key]!r}: the weights of a release are its own; remove the key.")
    if base is CausalLM:
        _check_shape(f"{where}.architecture", node.get("architecture"))
    if "tokenizer" not in node:
        return node
    place = folder / str(node["tokenizer"])
    if not place.resolve().is_relative_to(folder.resolve()) or not place.is_dir():
        raise ValueError(f"{where}.tokenizer is {node['tokenizer']!r}: there is no such folder in {folder}.")
    return {**node, "tokenizer": str(place)}


def _check(where: str, node: Mapping[str, Any], base: type) -> None:
    """A node names a class of its kind, what the class takes, and plain values."""
    target, kind = node.get("_target_"), base.__module__.split(".")[1]
    if not isinstance(target, str) or not re.fullmatch(rf"omnihuman\.{kind}\.[a-z0-9_]+\.[A-Za-z0-9]+", target):
        raise ValueError(f"{where}._target_ is {target!r}: only a class of omnihuman.{kind} may stand here.")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        found = None
    if not (isinstance(found, type) and issubclass(found, base) and found.__module__ == module):
        raise ValueError(f"{where}._target_ {target} is no {base.__name__} of this version of omnihuman.")
    partial = base in (Projector, Fusion)  # the model calls these with the widths
    if node.get("_partial_", False) is not partial:
        raise ValueError(f"{where}._partial_ is {node.get('_partial_', False)!r}, of this part it is {partial}.")
    own = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    if foreign := sorted(own.keys() - signature(found).parameters.keys()):
        raise ValueError(f"{where}: {name} takes no {', '.join(foreign)}.")
    check_plain(where, own)


def check_plain(where: str, value: Any) -> None:
    """Numbers, words, lists and objects of these; nothing that Hydra or OmegaConf would act on."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise ValueError(f"{where} has the key {key!r}, which no part of a release has.")
            check_plain(f"{where}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_plain(where, inner)
    elif not (value is None or isinstance(value, bool | int | float | str)) or "${" in str(value):
        raise ValueError(f"{where} is {value!r:.80}: only plain values may stand here.")


def _check_shape(where: str, shape: Any) -> None:
    """The configuration of a language model that transformers itself knows."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind = shape.get("model_type") if isinstance(shape, Mapping) else None
    known = kind in CONFIG_MAPPING and kind != "omnihuman" and CONFIG_MAPPING[kind] in MODEL_FOR_CAUSAL_LM_MAPPING
    if not known:
        raise ValueError(f"{where}.model_type is {kind!r}: transformers has no such causal language model.")
    if strange := sorted({*STRANGE} & {*shape}):
        raise ValueError(f"{where} has {', '.join(strange)}, which no shape of a model needs; remove the keys.")
