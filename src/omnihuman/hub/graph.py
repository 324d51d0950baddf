"""The graph of a model: its parts as plain data, stored with released weights and checked as untrusted input."""

import re
from collections.abc import Mapping
from dataclasses import asdict
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
from omnihuman.template import OWN, Template, parse_template

GROUPS: dict[str, type] = {"encoders": Encoder, "projectors": Projector, "early_fusions": Fusion, "fusions": Fusion}
INSTRUCTION_TOKENIZER = "instruction_tokenizer"
"""Folder of the tokenizer of the instruction encoders; the language model's tokenizer is beside the weights."""

UNSAFE_FIELDS = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "kernel_config")
"""Fields of a language model's configuration that refer to code or files elsewhere."""

RUNTIME_FIELDS = ("architectures", "transformers_version", "dtype", "torch_dtype", "name_or_path", *UNSAFE_FIELDS)
"""Fields of a language model's configuration that do not define its architecture."""


def build_graph(config: DictConfig, model: OmniModel) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the graph of a model, and the tokenizers that belong to it: folder -> source.

    The graph contains no weights and no path of this machine; sizes that came from weights are written into it.

    Raises:
        ValueError: the instruction encoders have different tokenizers.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    graph = prune(plain)
    tokenizers = {".": str(graph["llm"]["tokenizer"])}
    for name, node in graph["encoders"].items():
        for key in ("weights", "file"):
            node.pop(key, None)
        if "vocab_size" in node and node["vocab_size"] is None:
            encoder: Any = model.encoders[name]
            node["vocab_size"] = encoder.model.config.vocab_size
        if "tokenizer" in node:
            source = str(node["tokenizer"])
            if tokenizers.setdefault(INSTRUCTION_TOKENIZER, source) != source:
                raise ValueError(
                    f"encoder {name!r} tokenizes the instruction with {source}, another one with "
                    f"{tokenizers[INSTRUCTION_TOKENIZER]}: a release has one instruction tokenizer; use the same."
                )
            node["tokenizer"] = INSTRUCTION_TOKENIZER
    llm = graph["llm"]
    for key in ("weights", "lora", "activation_checkpointing"):
        llm.pop(key, None)
    architecture = {}
    for key, value in model.llm.model.config.to_diff_dict().items():
        if key not in RUNTIME_FIELDS and not key.startswith("_"):
            architecture[key] = value
    template = _plain_template(model.llm.template, architecture["model_type"])
    llm |= {"tokenizer": ".", "template": template, "architecture": architecture, "dtype": "float32"}
    # Parts become lists: fusions run in their order, and config.json sorts the keys of an object.
    for group in GROUPS:
        graph[group] = [{"name": name, **node} for name, node in (graph.get(group) or {}).items()]
    return graph, tokenizers


def _plain_template(template: Template, model_type: str) -> dict[str, Any]:
    """Return the keys of a chat template; the tokenizer's own is named after the language model.

    Its strings must be in the graph, as the tokenizer of a release has the exported template.
    """
    name = model_type if template.name == OWN else template.name
    return {**asdict(template), "name": name}


def parse_graph(graph: Any, folder: Path) -> dict[str, Any]:
    """Check the graph of a released folder, and return it as a config for ``build``.

    Only classes of this package are built, each in its group, without weights of their own; tokenizers are in the
    folder.

    Raises:
        ValueError: the graph has anything else.
    """
    location = f"{folder / 'config.json'}: graph"
    if not isinstance(graph, dict) or not isinstance(graph.get("llm"), dict):
        raise ValueError(f"{location} is not the graph of a model: it was not written by omnihuman export.")
    options = {key: value for key, value in graph.items() if key not in (*GROUPS, "llm")}
    _check_node(location, options, OmniModel)
    config = {**graph, "llm": _parse_part(f"{location}.llm", graph["llm"], CausalLM, folder)}
    for group, base in GROUPS.items():
        config[group] = _parse_group(f"{location}.{group}", graph.get(group) or [], base, folder)
    return config


def _parse_group(location: str, nodes: Any, base: type, folder: Path) -> dict[str, Any]:
    """Check a list of parts, and return them by name."""
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ValueError(f"{location} is not a list of parts.")
    names = [node.get("name") for node in nodes]
    is_valid = all(isinstance(name, str) and name.isidentifier() for name in names)
    if not is_valid or len(set(names)) != len(names):
        raise ValueError(f"{location} has the names {names}; expected one unique identifier for each part.")
    parts = {}
    for node in nodes:
        options = dict(node)
        name = options.pop("name")
        parts[name] = _parse_part(f"{location}.{name}", options, base, folder)
    return parts


def _parse_part(location: str, node: dict[str, Any], base: type, folder: Path) -> dict[str, Any]:
    """Check one part, and return it with its tokenizer as a path."""
    _check_node(location, node, base)
    for key in ("weights", "file", "lora"):
        if isinstance(node.get(key), str | Mapping):
            raise ValueError(
                f"{location}.{key} is {node[key]!r}: the weights of a release are its own; remove the key."
            )
    if base is CausalLM:
        _check_template(f"{location}.template", node.get("template"))
        _check_architecture(f"{location}.architecture", node.get("architecture"))
    if "tokenizer" not in node:
        return node
    tokenizer = folder / str(node["tokenizer"])
    if not tokenizer.resolve().is_relative_to(folder.resolve()) or not tokenizer.is_dir():
        raise ValueError(f"{location}.tokenizer is {node['tokenizer']!r}: {folder} has no such folder.")
    return {**node, "tokenizer": str(tokenizer)}


def _check_node(location: str, node: Mapping[str, Any], base: type) -> None:
    """Check that a node names a class of its kind, arguments of the class, and plain values."""
    cls = _import_class(f"{location}._target_", node.get("_target_"), base)
    is_partial = base in (Projector, Fusion)  # the model calls these with the widths
    partial = node.get("_partial_", False)
    if partial is not is_partial:
        raise ValueError(f"{location}._partial_ is {partial!r}; expected {is_partial} for this part.")
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    unknown = sorted(arguments.keys() - signature(cls).parameters.keys())
    if unknown:
        raise ValueError(f"{location}: unknown arguments of {cls.__name__}: {', '.join(unknown)}.")
    check_plain(location, arguments)


def _import_class(location: str, target: Any, base: type) -> type:
    """Return the class of a ``_target_``, which must be a subclass of ``base`` defined in a module of its package."""
    kind = base.__module__.split(".")[1]
    if not isinstance(target, str) or not re.fullmatch(rf"omnihuman\.{kind}\.[a-z0-9_]+\.[A-Za-z0-9]+", target):
        raise ValueError(f"{location} is {target!r}; expected a class of omnihuman.{kind}.")
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, base) and cls.__module__ == module):
        raise ValueError(f"{location} {target} is not a {base.__name__} of this version of omnihuman.")
    return cls


def check_plain(location: str, value: Any) -> None:
    """Check that a value consists of numbers, strings, lists and objects, and that Hydra and OmegaConf ignore it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise ValueError(f"{location} has the key {key!r}, which no part of a release has.")
            check_plain(f"{location}.{key}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(location, item)
    elif not (value is None or isinstance(value, bool | int | float | str)) or "${" in str(value):
        raise ValueError(f"{location} is {value!r:.80}; expected a plain value.")


def _check_template(location: str, template: Any) -> None:
    """Check that a chat template is complete, and not the tokenizer's own."""
    if not isinstance(template, Mapping) or template.get("name") == OWN:
        raise ValueError(f"{location} is {template!r:.80}; expected the keys of conf/llm/template/chatml.yaml.")
    parse_template(template, location)


def _check_architecture(location: str, architecture: Any) -> None:
    """Check that transformers itself has the architecture of a language model."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind = architecture.get("model_type") if isinstance(architecture, Mapping) else None
    is_known = kind in CONFIG_MAPPING and kind != "omnihuman" and CONFIG_MAPPING[kind] in MODEL_FOR_CAUSAL_LM_MAPPING
    if not is_known:
        raise ValueError(f"{location}.model_type is {kind!r}: transformers has no such causal language model.")
    unsafe = sorted({*UNSAFE_FIELDS} & {*architecture})
    if unsafe:
        raise ValueError(f"{location} has {', '.join(unsafe)}, which no architecture needs; remove the keys.")
