"""A folder that ``python -m omnihuman.export`` has written -> the plan of a model folder, which every verb takes."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_config
from omnihuman.convert.checkpoint import KeyReport
from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Piece, Plan, Request, copy_tokenizer
from omnihuman.release.hub.graph import GROUPS, WORDS, opened
from omnihuman.release.hub.processor import checked_data
from omnihuman.release.shards import open_checkpoint, read_config


def plan(request: Request, folder: Path) -> Plan:
    """What becomes of a released folder, or of a repository on the hub that holds one; its tokenizers are put in too.

    Its graph and its data options are checked as a stranger's, then they are a config like any other.

    Raises:
        ValueError: it is no released folder, its graph is not one of ours, or an adapter lies beside the bare model.
    """
    found = open_checkpoint(request.path)
    if (found.folder / "adapter").is_dir():
        raise ValueError(
            f"{found.folder} is a bare model with what LoRA has learned in adapter/: export the run with lora=merge, "
            "or remove adapter/ if the bare model is what you want."
        )
    official = read_config(found.folder)
    graph = opened(official.get("graph"), found.folder)
    data = checked_data(read_config(found.folder, "processor_config.json").get("data"), found.folder)
    if frames := request.options.get("frames"):
        data["num_frames"] = int(frames)
    with torch.device("meta"):
        model: OmniModel = build(graph)
    copy_tokenizer(found.folder, folder / "tokenizer")
    (folder / "tokenizer" / "generation_config.json").unlink(missing_ok=True)
    if said := graph["llm"].get("generation"):
        (folder / "tokenizer" / "generation_config.json").write_text(json.dumps(said))
    if (found.folder / WORDS).is_dir():
        copy_tokenizer(found.folder / WORDS, folder / WORDS)
    buffers = {name for name, each in model.named_buffers() if not each.is_floating_point()}
    report = KeyReport(
        {key: key for key in found if key not in buffers},
        {key: "computed when the model is built" for key in found if key in buffers},
    )
    expected = {name: tuple(each.shape) for name, each in model.state_dict(keep_vars=True).items()}
    for name in {*expected} & {*_tied(model), *buffers} - {*found}:
        del expected[name]
    expected = {name: shape for name, shape in expected.items() if name not in buffers}
    return Plan((Piece(found, report),), expected, _config(graph, data, model, request), official=official)


def _tied(model: OmniModel) -> set[str]:
    """Names of the language model's parameters that are others'."""
    inner: Any = model.llm.model
    return {f"llm.model.{name}" for name in inner.all_tied_weights_keys}


def _config(graph: dict[str, Any], data: dict[str, Any], model: OmniModel, request: Request) -> DictConfig:
    """A stage's config with the model and the data path of the release."""
    parts = {group: graph[group] for group in GROUPS}
    for encoder in parts["encoders"].values():
        encoder |= {"tokenizer": f"${{folder}}/{WORDS}"} if "tokenizer" in encoder else {}
    own = {"tokenizer": "${folder}/tokenizer", "activation_checkpointing": "${stage.activation_checkpointing}"}
    reads = {what for what, _ in model.transforms.values()}
    sees, hears = bool(reads & {"frames", "faces"}), "waveform" in reads
    views = ["video_audio", "video", "audio"] if sees and hears else ["video"] if sees else ["audio"]
    config = compose_config(["+experiment=humanomni_stage3"])
    OmegaConf.set_struct(config, False)
    config.model = {**graph, **parts, "llm": graph["llm"] | own, "drop": []}
    changes = {"data": {**data, "views": views}, "answers": {"modals": views}, "frames": data["num_frames"]}
    merged = OmegaConf.merge(config, changes, {"name": request.out.name, "init_from": []})
    assert isinstance(merged, DictConfig)
    return merged
