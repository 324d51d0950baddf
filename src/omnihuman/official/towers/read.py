"""Conversion of a SigLIP, Whisper, BERT, Qwen2 or Mistral to a folder that our part loads by ``weights``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnihuman.build import compose_part
from omnihuman.official.checkpoint import open_checkpoint, read_config, resolve_path
from omnihuman.official.conversion import (
    CONFIG_KEYS,
    Conversion,
    MappedCheckpoint,
    Request,
    compare_templates,
    copy_tokenizer,
    format_usage,
    parameter_shapes,
)
from omnihuman.official.humanomni.checkpoint import TOWER_SIZES
from omnihuman.official.towers import keys

CHAT_TEMPLATES = {"qwen2": "chatml", "mistral": "mistral"}
"""Official model -> yaml of ``conf/llm/template`` that its preset selects."""

ARCHITECTURE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "head_dim",
    "sliding_window",
    "tie_word_embeddings",
)


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of a single model of the hub, and copy its tokenizer if it has one.

    Raises:
        ValueError: it is another kind of model, or its files contradict each other.
    """
    official = request.official
    checkpoint = open_checkpoint(request.path)
    fields = read_config(checkpoint.folder)
    config = build_hub_config(official, fields, checkpoint.folder)
    report = keys.report_keys(checkpoint, official, bool(getattr(config, "tie_word_embeddings", False)))
    weights = str(request.out.absolute())
    arguments = {"weights": weights, **{key: getattr(config, key) for key in TOWER_SIZES.get(official, ())}}
    tokenizer = resolve_path(request.options.get("tokenizer") or checkpoint.folder)
    notes: tuple[str, ...] = ()
    if official == "bert":
        save_bert_tokenizer(tokenizer, folder / "tokenizer", "tokenizer")
        arguments["tokenizer"] = f"{weights}/tokenizer"
    elif official in CHAT_TEMPLATES:
        copy_tokenizer(tokenizer, folder / "tokenizer")
        arguments["tokenizer"] = f"{weights}/tokenizer"
        template = CHAT_TEMPLATES[official]
        usage = f"{format_usage(official, arguments)} llm/template@model.llm.template={template}"
        notes = (usage, *compare_templates(folder / "tokenizer", compose_part("llm/template", template)))
    return Conversion(
        (MappedCheckpoint(checkpoint, report),),
        parameter_shapes(build_hub_model(official, config)),
        sizes=config.to_dict(),
        official=fields,
        notes=notes or (format_usage(official, arguments),),
    )


def build_hub_config(source: str, official: Mapping[str, Any], folder: Path) -> Any:
    """Return the complete configuration of the model that our part loads.

    Args:
        source: ``siglip``, ``whisper``, ``bert``, ``qwen2`` or ``mistral``.
        official: fields of ``config.json``; of a SigLIP with two towers those of the vision tower count.
        folder: of the file, for the message.

    Raises:
        ValueError: it is the configuration of another model.
    """
    from transformers import AutoConfig

    fields = dict(official)
    if source == "siglip" and fields.get("model_type") == "siglip":
        fields = {"model_type": "siglip_vision_model", **(fields.get("vision_config") or {})}
    model_type = "siglip_vision_model" if source == "siglip" else source
    if fields.get("model_type") != model_type:
        actual = official.get("model_type")
        cure = f"give official={actual}" if actual in CONFIG_KEYS else "choose the official model that fits"
        raise ValueError(
            f"{folder}/config.json: unexpected model_type {actual!r}; official={source} expects {model_type!r}: {cure}."
        )
    for key in ("architectures", "auto_map", "torch_dtype"):
        fields.pop(key, None)
    if source == "siglip":
        fields["vision_use_head"] = False
    return AutoConfig.for_model(**fields)


def select_architecture(config: Any) -> dict[str, Any]:
    """Return the fields of a language model's configuration that define its architecture, for ``llm.architecture``."""
    fields = {key: getattr(config, key) for key in ARCHITECTURE if getattr(config, key, None) is not None}
    fields["rope_parameters"] = dict(config.rope_parameters)
    return fields


def build_hub_model(source: str, config: Any) -> nn.Module:
    """Return the model, on the meta device, whose parameters a folder of that source must have."""
    from transformers import AutoModelForCausalLM, BertModel, SiglipVisionModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    constructors: dict[str, Callable[[Any], Any]] = {
        "siglip": SiglipVisionModel,
        "whisper": WhisperEncoder,
        "bert": lambda config: BertModel(config, add_pooling_layer=False),
    }
    construct = constructors.get(source, AutoModelForCausalLM.from_config)
    with torch.device("meta"):
        model = construct(config)
    assert isinstance(model, nn.Module)
    return model


def save_bert_tokenizer(source: Path, folder: Path, option: str) -> None:
    """Save BERT's tokenizer with the name of its class, which the released folder leaves to the model's config.json.

    Args:
        source: folder of the tokenizer.
        folder: to write.
        option: of the user that replaces ``source``, for the message.

    Raises:
        ValueError: ``source`` has no tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{source} holds no tokenizer ({reason}): give {option}=<folder or hub id of a BERT with one>."
        ) from error
