"""The graph of a model: its parts as plain data, stored with released weights and checked as untrusted input."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import PART_GROUPS, prune
from omnihuman.gate import check_config
from omnihuman.llm.causal import UNSAFE_FIELDS, check_fields
from omnihuman.model.omni import OmniModel
from omnihuman.template import OWN, Template, parse_template

INSTRUCTION_TOKENIZER = "instruction_tokenizer"
"""Folder of the tokenizer of the instruction encoders; the language model's tokenizer is beside the weights."""

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
    for key in ("weights", "lora", "activation_checkpointing", "compile"):
        llm.pop(key, None)
    architecture = {}
    for key, value in model.llm.model.config.to_diff_dict().items():
        if key not in RUNTIME_FIELDS and not key.startswith("_"):
            architecture[key] = value
    template = _plain_template(model.llm.template, architecture["model_type"])
    llm |= {"tokenizer": ".", "template": template, "architecture": architecture, "dtype": "float32"}
    # Parts become lists: fusions run in their order, and config.json sorts the keys of an object.
    for group in PART_GROUPS:
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

    Besides what the gate checks in every config: parts have no weights of their own, and tokenizers are in the folder.

    Raises:
        ValueError: the graph has anything else.
    """
    location = f"{folder / 'config.json'}: graph"
    if not isinstance(graph, dict) or not isinstance(graph.get("llm"), dict):
        raise ValueError(f"{location} is not the graph of a model: it was not written by omnihuman export.")
    config = dict(graph)
    for group in PART_GROUPS:
        config[group] = _parse_group(f"{location}.{group}", graph.get(group) or [])
    check_config(location, config, "model")
    for group in PART_GROUPS:
        is_partial = group != "encoders"  # the model calls the other parts with the widths
        for name, node in config[group].items():
            config[group][name] = _parse_part(f"{location}.{group}.{name}", node, is_partial, folder)
    config["llm"] = _parse_part(f"{location}.llm", config["llm"], False, folder)
    _check_template(f"{location}.llm.template", config["llm"].get("template"))
    _check_architecture(f"{location}.llm.architecture", config["llm"].get("architecture"))
    return config


def _parse_group(location: str, nodes: Any) -> dict[str, Any]:
    """Return a list of parts by name."""
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ValueError(f"{location} is not a list of parts.")
    names = [node.get("name") for node in nodes]
    is_valid = all(isinstance(name, str) and name.isidentifier() for name in names)
    if not is_valid or len(set(names)) != len(names):
        raise ValueError(f"{location} has the names {names}; expected one unique identifier for each part.")
    parts = {}
    for node in nodes:
        options = dict(node)
        parts[options.pop("name")] = options
    return parts


def _parse_part(location: str, node: dict[str, Any], is_partial: bool, folder: Path) -> dict[str, Any]:
    """Check one part, and return it with its tokenizer as a path."""
    if "_target_" not in node or node.get("_partial_", False) is not is_partial:
        raise ValueError(f"{location} must have a _target_, and _partial_: {str(is_partial).lower()}.")
    for key in ("weights", "file", "lora"):
        if isinstance(node.get(key), str | Mapping):
            raise ValueError(
                f"{location}.{key} is {node[key]!r}: the weights of a release are its own; remove the key."
            )
    if "tokenizer" not in node:
        return node
    tokenizer = folder / str(node["tokenizer"])
    if not tokenizer.resolve().is_relative_to(folder.resolve()) or not tokenizer.is_dir():
        raise ValueError(f"{location}.tokenizer is {node['tokenizer']!r}: {folder} has no such folder.")
    return {**node, "tokenizer": str(tokenizer)}


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
    check_fields(location, architecture, UNSAFE_FIELDS)
