"""VideoChat2-Mistral of stage 2 or 3 and the Mistral it goes with -> the plan of a model folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_config, compose_part
from omnihuman.convert import towers
from omnihuman.convert import videochat2 as names
from omnihuman.convert.checkpoint import KeyReport
from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Piece, Plan, Request, copy_tokenizer, parameters
from omnihuman.release.shards import local, open_checkpoint, read_config
from omnihuman.release.source.parts import (
    HEAD_DIM,
    architecture,
    beside,
    count,
    hub_config,
    one_file,
    save_words,
    shape,
    umt_sizes,
)
from omnihuman.training.weights import canonical

MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"
BERT = "google-bert/bert-base-uncased"
EXPERIMENT = "favchat_stage1"
LACKS = ("encoders.face", "early_fusions.cascade", "projectors.facial", "fusions.moe")
"""Parts of FaVChat that VideoChat2 does not have."""

VIDEO, GENERAL, LLM = "encoders.video.", "projectors.general.", "llm.model."

Shapes = Mapping[str, tuple[int, ...]]


def plan(request: Request, folder: Path) -> Plan:
    """What becomes of VideoChat2's file; the tokenizers of Mistral and, in stage 3, of BERT are put into ``folder``.

    The file holds what its stage trained: the vision encoder, the Q-Former, one Linear, in stage 3 LoRA. The language
    model comes from a folder of its own (``language_model=``). Names are those of ``conf/model/favchat.yaml``, which
    has a second Linear and a face's branch besides.

    Reference: VideoChat2 ``videochat2_it_mistral.py``; LoRA of stage 3 as in its ``config_7b_stage3.py``.

    Raises:
        ValueError: something is missing, or sizes do not fit each other.
    """
    found = open_checkpoint(one_file(request.path), inside=("model", "module"))
    report = names.report(found, names.blocks_of(found))
    shapes = {name: found.headers[key].shape for key, name in report.taken.items()}
    for part, what in ((VIDEO, "vision encoder"), (GENERAL, "Q-Former")):
        if not any(name.startswith(part) for name in shapes):
            raise ValueError(f"{found.path} has no {what}: take stage 2's or 3's file; of UMT's own file source=umt.")
    base = open_checkpoint(beside(request.options, "language_model", MISTRAL))
    official = read_config(base.folder)
    text = hub_config("mistral", official, base.folder)
    given = request.options.get("tokenizer")
    copy_tokenizer(local(given) if given else base.folder, folder / "tokenizer")
    config = _config(request, shapes, found.path, text)
    if config.model.projectors.general.text:
        save_words(beside(request.options, "instruction_encoder", BERT), folder / "instruction_tokenizer")
    config.folder = str(folder)
    with torch.device("meta"):
        model: OmniModel = build(config.model)
    del config["folder"]
    tokens = model.layouts({"frames": int(config.frames)})["video"]
    mistral = towers.report(base, "mistral", tied=bool(text.tie_word_embeddings))
    mistral = KeyReport({key: f"{LLM}{name}" for key, name in mistral.taken.items()}, mistral.dropped)
    return Plan(
        (Piece(found, report), Piece(base, mistral)),
        {canonical(name): shape for name, shape in parameters(model).items()},
        config,
        official=official,
        cures={f"{LLM}*": "is language_model= the folder of a whole Mistral?"},
        notes=(
            f"{config.frames} frames become {tokens} tokens of video; the language model is {base.path}",
            f"a stage of FaVChat starts from it with base={request.out} model.drop=[fusions.single] "
            "model.encoders.face.weights=kartiknarayan/facexformer",
        ),
    )


def qformer_sizes(shapes: Shapes, where: Path) -> dict[str, Any]:
    """The arguments of our Q-Former, from the shapes of its parameters.

    Raises:
        ValueError: it is not whole.
    """
    at = "model.encoder.layer.{}."
    _, queries, hidden = shape(where, shapes, "queries")
    layers = count(shapes, f"{at}attention.attention.query.weight")
    looks = [n for n in range(layers) if f"{at.format(n)}crossattention.attention.query.weight" in shapes]
    words = shapes.get("model.embeddings.word_embeddings.weight")
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD_DIM,
        "intermediate_size": shape(where, shapes, f"{at.format(0)}intermediate_query.dense.weight")[0],
        "num_queries": queries,
        "extra_queries": shape(where, shapes, "extra_queries")[1],
        "cross_attention_frequency": looks[1] if len(looks) > 1 else layers,
        "linears": 1,
        "text": words is not None,
    } | ({} if words is None else {"vocab_size": words[0]})


def lora_of(shapes: Shapes) -> dict[str, Any] | None:
    """Fields of a peft ``LoraConfig`` from the shapes of its matrices, ``None`` where there are none.

    >>> lora_of({"llm.model.lm_head.lora_A.default.weight": (16, 4096)})["lora_alpha"]
    32
    """
    found = {name: shape for name, shape in shapes.items() if ".lora_A." in name}
    if not found:
        return None
    targets = {re.sub(r"\.lora_A\..*", "", name).rpartition(".")[2] for name in found}
    rank = next(iter(found.values()))[0]
    return {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.1, "target_modules": sorted(targets)}


def _config(request: Request, shapes: Shapes, where: Path, text: Any) -> DictConfig:
    vision = umt_sizes(_under(shapes, VIDEO), where)
    reader = qformer_sizes(_under(shapes, GENERAL), where)
    lora = lora_of(shapes)
    encoders: dict[str, Any] = {
        "video": {**vision, "image_size": vision["table_side"] * vision["patch_size"], "weights": None, "file": None},
        "face": {"weights": None},  # dropped: a config without `weights` is read without drawing any
    }
    if reader["text"]:
        words = OmegaConf.to_container(compose_part("encoder", "words/7b"))
        assert isinstance(words, dict)
        encoders["instruction"] = {**words, "tokenizer": "${folder}/instruction_tokenizer"}
    single = OmegaConf.to_container(compose_part("fusion", "newline"))
    assert isinstance(single, dict)
    changes = {
        "name": request.out.name,
        "next": None,
        "frames": int(request.options.get("frames") or (8 if lora else 4)),
        "model": {
            "encoders": encoders,
            "conditions": {"general": "instruction"} if reader["text"] else {},
            "projectors": {"general": reader, "facial": {**reader, "linears": 2, "text": False}},
            "fusions": {"single": {**single, "inputs": ["general"], "output": "video", "mode": "none"}},
            "llm": {"weights": None, "tokenizer": "${folder}/tokenizer", "architecture": architecture(text),
                    "template": "mistral", "lora": lora},
            "drop": list(LACKS),
        },
        "data": {"markers": False, "views": ["video"]},
    }  # fmt: skip
    config = OmegaConf.merge(compose_config([f"+experiment={EXPERIMENT}", "size=7b"]), {})
    OmegaConf.set_struct(config, False)
    merged = OmegaConf.merge(config, changes)
    assert isinstance(merged, DictConfig)
    return merged


def _under(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
