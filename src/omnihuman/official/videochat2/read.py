"""Conversion of VideoChat2-Mistral of stage 2 or 3, with the Mistral that it belongs to."""

import re
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_part
from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import canonical_name
from omnihuman.official.checkpoint import (
    Checkpoint,
    find_single_file,
    open_checkpoint,
    read_config,
    resolve_option,
    resolve_path,
)
from omnihuman.official.conversion import (
    Conversion,
    MappedCheckpoint,
    Request,
    change_experiment,
    copy_tokenizer,
    parameter_shapes,
)
from omnihuman.official.keys import KeyReport
from omnihuman.official.shapes import HEAD_DIM, Shapes, count_names, find_shape
from omnihuman.official.towers import keys as towers
from omnihuman.official.towers.read import build_hub_config, save_bert_tokenizer, select_architecture
from omnihuman.official.umt.read import infer_umt_sizes
from omnihuman.official.videochat2 import keys as keys

MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"
BERT = "google-bert/bert-base-uncased"
EXPERIMENT = "favchat_stage1"
DROPPED_PARTS = ("encoders.face", "early_fusions.cascade", "projectors.facial", "fusions.moe")
"""Parts of FaVChat that VideoChat2 does not have."""

VIDEO, GENERAL, LLM = "encoders.video.", "projectors.general.", "llm.model."
"""Prefixes of our names."""


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of VideoChat2's file; copy the tokenizers of Mistral and, in stage 3, of BERT.

    The file has what its stage trained: the vision encoder, the Q-Former, one Linear, in stage 3 LoRA. The language
    model comes from its own folder (``language_model=``). Names are those of ``conf/model/favchat.yaml``, which has a
    second Linear and a face branch as well.

    Reference: VideoChat2 ``videochat2_it_mistral.py``; LoRA of stage 3 as in its ``config_7b_stage3.py``.

    Raises:
        ValueError: a file or part is missing, or sizes do not fit each other.
    """
    checkpoint = open_checkpoint(find_single_file(request.path), wrappers=("model", "module"))
    mapped = MappedCheckpoint(checkpoint, keys.report_keys(checkpoint, keys.count_blocks(checkpoint)))
    shapes = mapped.shapes()
    _check_parts(checkpoint, shapes)
    base = open_checkpoint(resolve_option(request.options, "language_model", MISTRAL))
    official = read_config(base.folder)
    text = build_hub_config("mistral", official, base.folder)
    tokenizer = request.options.get("tokenizer")
    copy_tokenizer(resolve_path(tokenizer) if tokenizer else base.folder, folder / "tokenizer")
    config = _build_config(request, shapes, checkpoint.path, text)
    if config.model.projectors.general.text:
        bert = resolve_option(request.options, "instruction_encoder", BERT)
        save_bert_tokenizer(bert, folder / "instruction_tokenizer", "instruction_encoder")
    config.folder = str(folder)
    with torch.device("meta"):
        model: OmniModel = build(config.model)
    del config["folder"]
    tokens = model.count_tokens({"frames": int(config.frames)})["video"]
    mistral = towers.report_keys(base, "mistral", bool(text.tie_word_embeddings))
    mistral = KeyReport({key: f"{LLM}{name}" for key, name in mistral.names.items()}, mistral.dropped)
    return Conversion(
        (mapped, MappedCheckpoint(base, mistral)),
        {canonical_name(name): shape for name, shape in parameter_shapes(model).items()},
        config,
        official=official,
        hints={f"{LLM}*": "is language_model= the folder of a complete Mistral?"},
        notes=(
            f"{config.frames} frames become {tokens} video tokens; the language model is {base.path}",
            f"FaVChat starts from it: omnihuman train +experiment=favchat_stage3 base={request.out}",
        ),
        prompting="videochat2",
    )


def _check_parts(checkpoint: Checkpoint, shapes: Shapes) -> None:
    for prefix, part in ((VIDEO, "vision encoder"), (GENERAL, "Q-Former")):
        if not any(name.startswith(prefix) for name in shapes):
            raise ValueError(
                f"{checkpoint.path} has no {part}: take the file of stage 2 or 3, or official=umt for UMT's own file."
            )


def infer_qformer_sizes(shapes: Shapes, file: Path) -> dict[str, Any]:
    """Return the arguments of our Q-Former, from the shapes of its parameters.

    Raises:
        ValueError: the Q-Former is incomplete.
    """
    prefix = "model.encoder.layer.{}."
    _, queries, hidden = find_shape(file, shapes, "queries")
    num_layers = count_names(shapes, f"{prefix}attention.attention.query.weight")
    cross_layers = []
    for layer in range(num_layers):
        if f"{prefix.format(layer)}crossattention.attention.query.weight" in shapes:
            cross_layers.append(layer)
    embeddings = shapes.get("model.embeddings.word_embeddings.weight")
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": num_layers,
        "num_attention_heads": hidden // HEAD_DIM,
        "intermediate_size": find_shape(file, shapes, f"{prefix.format(0)}intermediate_query.dense.weight")[0],
        "num_queries": queries,
        "extra_queries": find_shape(file, shapes, "extra_queries")[1],
        "cross_attention_frequency": cross_layers[1] if len(cross_layers) > 1 else num_layers,
        "linears": 1,
        "text": embeddings is not None,
    }
    if embeddings is not None:
        sizes["vocab_size"] = embeddings[0]
    return sizes


def infer_lora(shapes: Shapes) -> dict[str, Any] | None:
    """Return the fields of a peft ``LoraConfig`` from the shapes of its matrices, ``None`` without any.

    >>> infer_lora({"llm.model.lm_head.lora_A.default.weight": (16, 4096)})["lora_alpha"]
    32
    """
    rank = None
    modules = set()
    for name, shape in shapes.items():
        if ".lora_A." in name:
            rank = rank or shape[0]
            modules.add(re.sub(r"\.lora_A\..*", "", name).rpartition(".")[2])
    if rank is None:
        return None
    return {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.1, "target_modules": sorted(modules)}


def _build_config(request: Request, shapes: Shapes, file: Path, text: Any) -> DictConfig:
    vision = infer_umt_sizes(_select_prefix(shapes, VIDEO), file)
    image_size = vision["table_side"] * vision["patch_size"]
    qformer = infer_qformer_sizes(_select_prefix(shapes, GENERAL), file)
    lora = infer_lora(shapes)
    default_frames = 8 if lora else 4
    encoders: dict[str, Any] = {
        "video": {**vision, "image_size": image_size, "weights": None},
        "face": {"weights": None},  # dropped: a config without `weights` is loaded without initialization
    }
    conditions = {}
    if qformer["text"]:
        token_ids = OmegaConf.to_container(compose_part("encoder", "token_ids", size="7b"))
        assert isinstance(token_ids, dict)
        encoders["instruction"] = {**token_ids, "tokenizer": "${folder}/instruction_tokenizer"}
        conditions["general"] = "instruction"
    newline = OmegaConf.to_container(compose_part("fusion", "newline"))
    assert isinstance(newline, dict)
    changes: dict[str, Any] = {
        "name": request.out.name,
        "next": None,
        "stages": [],  # FaVChat's first stage starts from it
        "frames": int(request.options.get("frames") or default_frames),
        "model": {
            "encoders": encoders,
            "conditions": conditions,
            "projectors": {"general": qformer, "facial": {**qformer, "linears": 2, "text": False}},
            "fusions": {"single": {**newline, "inputs": ["general"], "output": "video", "mode": "none"}},
            "llm": {
                "weights": None,
                "tokenizer": "${folder}/tokenizer",
                "architecture": select_architecture(text),
                "template": {"name": "mistral"},
                "lora": lora,
            },
            "drop": list(DROPPED_PARTS),
        },
        "data": {"markers": False, "views": ["video"]},
    }
    return change_experiment(EXPERIMENT, "7b", changes)


def _select_prefix(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
