"""Conversion of a folder of ``omnihuman export`` back to a model folder, which every command accepts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import PART_GROUPS, build, compose_config
from omnihuman.hub.graph import INSTRUCTION_TOKENIZER, parse_graph
from omnihuman.hub.processor import check_data_options
from omnihuman.modality import View
from omnihuman.model.omni import OmniModel
from omnihuman.official.checkpoint import Checkpoint, open_checkpoint, read_config
from omnihuman.official.conversion import Conversion, MappedCheckpoint, Request, copy_tokenizer
from omnihuman.official.keys import KeyReport


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of a released folder, or of a repository on the hub with one, and copy its tokenizers.

    Its graph and its data options are untrusted input: both are checked before they become a config.

    Raises:
        ValueError: it is not a released folder, its graph is invalid, or it has a LoRA adapter beside the base model.
    """
    checkpoint = open_checkpoint(request.path)
    source = checkpoint.folder
    if (source / "adapter").is_dir():
        raise ValueError(
            f"{source} is a base model with its LoRA in adapter/: export the run with lora=merge, or remove adapter/ "
            "to convert the base model."
        )
    official = read_config(source)
    graph = parse_graph(official.get("graph"), source)
    data = check_data_options(read_config(source, "processor_config.json").get("data"), source)
    num_frames = request.options.get("frames")
    if num_frames:
        data["num_frames"] = int(num_frames)
    with torch.device("meta"):
        model: OmniModel = build(graph)
    _copy_tokenizers(source, folder, graph["llm"].get("generation"))
    # Integer buffers, such as position ids, are computed when the model is built: a model folder has none of them.
    buffers = {name for name, buffer in model.named_buffers() if not buffer.is_floating_point()}
    names, dropped = {}, {}
    for key in checkpoint:
        if key in buffers:
            dropped[key] = "computed when the model is built"
        else:
            names[key] = key
    return Conversion(
        (MappedCheckpoint(checkpoint, KeyReport(names, dropped)),),
        _expected_shapes(model, checkpoint, buffers),
        _build_config(graph, data, _read_stages(official, source), model, request),
        official=official,
    )


def _copy_tokenizers(source: Path, folder: Path, generation: dict[str, Any] | None) -> None:
    """Copy the tokenizers; the generation options in the graph replace those of transformers."""
    copy_tokenizer(source, folder / "tokenizer")
    (folder / "tokenizer" / "generation_config.json").unlink(missing_ok=True)
    if generation:
        (folder / "tokenizer" / "generation_config.json").write_text(json.dumps(generation))
    if (source / INSTRUCTION_TOKENIZER).is_dir():
        copy_tokenizer(source / INSTRUCTION_TOKENIZER, folder / INSTRUCTION_TOKENIZER)


def _expected_shapes(model: OmniModel, checkpoint: Checkpoint, buffers: set[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the checkpoint must have: tied parameters are optional, integer buffers are left out."""
    llm: Any = model.llm.model
    tied = {f"llm.model.{name}" for name in llm.all_tied_weights_keys}
    shapes = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        is_optional = name in tied and name not in checkpoint
        if name not in buffers and not is_optional:
            shapes[name] = tuple(tensor.shape)
    return shapes


def _build_config(
    graph: dict[str, Any], data: dict[str, Any], stages: list[str], model: OmniModel, request: Request
) -> DictConfig:
    """Return a stage's config with the model and the data path of the release."""
    parts = {group: graph[group] for group in PART_GROUPS}
    for encoder in parts["encoders"].values():
        if "tokenizer" in encoder:
            encoder["tokenizer"] = f"${{folder}}/{INSTRUCTION_TOKENIZER}"
    llm = {
        **graph["llm"],
        "tokenizer": "${folder}/tokenizer",
        "activation_checkpointing": "${recipe.activation_checkpointing}",
        "compile": None,
    }
    views = _supported_views(model)
    config = compose_config(["+experiment=humanomni_stage3"])
    OmegaConf.set_struct(config, False)
    config.model = {**graph, **parts, "llm": llm, "drop": []}
    changes = {"data": {**data, "views": views}, "validation": {"views": views}, "frames": data["num_frames"]}
    merged = OmegaConf.merge(config, changes, {"name": request.out.name, "init_from": [], "stages": stages})
    assert isinstance(merged, DictConfig)
    return merged


def _read_stages(official: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the experiments whose training the weights contain, as config.json lists them."""
    stages = official.get("stages") or []
    if not isinstance(stages, list) or not all(isinstance(name, str) and name.isidentifier() for name in stages):
        raise ValueError(f"{folder}/config.json: stages must be a list of experiments, got {stages!r:.80}.")
    return stages


def _supported_views(model: OmniModel) -> list[str]:
    view = View.of_fields(field for field, _ in model.transforms.values())
    if "video" not in view.slots:
        return ["A"]
    if "audio" not in view.slots:
        return ["VF"]
    return ["VAF", "VF", "A"]
