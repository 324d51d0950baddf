"""A model folder -> one folder that transformers reads."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, GenerationConfig

from omnihuman.build import build
from omnihuman.model.omni import OmniModel
from omnihuman.release.hub.card import bases_of, medium_of, write_card
from omnihuman.release.hub.configuration import OmniHumanConfig
from omnihuman.release.hub.graph import graph_of, opened
from omnihuman.release.hub.huggingface import OmniHumanForCausalLM
from omnihuman.release.hub.processor import DATA, FACE, OmniHumanProcessor
from omnihuman.training.finished import load_model
from omnihuman.types import TEMPLATES, Template

Adapter = tuple[dict[str, Any], dict[str, Tensor]]
"""Options of peft's LoraConfig, and the tensors by peft's names."""

MAX_NEW_TOKENS = 128
"""As in ``conf/generate.yaml``."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        medium: an argument of the processor for what the model reads.
        notes: what the folder does not hold, or holds otherwise than the run.
    """

    medium: str
    notes: tuple[str, ...]


def export(
    folder: Path, out: Path, *, lora: str = "merge", max_shard_size: str = "5GB", dtype: str | None = None
) -> Exported:
    """Write a model folder in Hugging Face form.

    Args:
        folder: of a finished run or a converted checkpoint.
        out: a new or empty folder.
        lora: ``merge`` adapters into the weights, or keep them as an ``adapter`` of peft beside the bare model.
        max_shard_size: of one file of weights: ``5GB``.
        dtype: of the parameters; ``None`` leaves what they are.

    Raises:
        ValueError: ``out`` holds something, the folder no finished run, or the options do not fit it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out={out} holds something already: name a new folder.")
    if lora not in ("merge", "adapter"):
        raise ValueError(f"lora={lora}: choose from merge, adapter.")
    config, model = load_model(folder, merge_lora=lora == "merge", dtype=dtype)
    adapter = adapter_of(config, model) if lora == "adapter" else None
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    if len(dtypes) > 1:
        raise ValueError(f"{folder}: parameters are {' and '.join(dtypes)}, a release has one: give dtype={dtypes[0]}.")
    staging = out.with_name(f"{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        notes = _write(folder, config, model, staging, max_shard_size, adapter)
        if out.exists():
            out.rmdir()
        staging.rename(out)
    except SafetensorError as error:  # which no full disk is an OSError for
        raise ValueError(f"out={out}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(medium_of(model), notes)


def _write(
    folder: Path, config: DictConfig, model: OmniModel, out: Path, max_shard_size: str, adapter: Adapter | None
) -> tuple[str, ...]:
    """Everything that stands in a released folder; returns what to say about it."""
    graph, tokenizers = graph_of(config.model, model)
    for name, source in tokenizers.items():
        tokenizer = AutoTokenizer.from_pretrained(source)
        if name == ".":
            tokenizer.chat_template = chat_template(**model.llm.chat)
            model.llm.tokenizer = tokenizer
        tokenizer.save_pretrained(out / name)
    check_graph(graph, out, model)
    released = OmniHumanForCausalLM(
        OmniHumanConfig(graph=graph, bases=[*dict.fromkeys(bases_of(folder, config))]), model
    )
    llm = model.llm
    released.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=llm.end_ids, pad_token_id=llm.end_id
    )
    released.save_pretrained(out, max_shard_size=max_shard_size)
    data, notes = data_of(config.data)
    words = model.llm.tokenizer
    OmniHumanProcessor(words, graph, data, str(out), chat_template=words.chat_template).save_pretrained(out)
    if adapter is not None:
        save_adapter(*adapter, out / "adapter")
    write_card(folder, config, model, out, adapted=adapter is not None, notes=notes)
    return notes


def data_of(config: DictConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The data options of a config that travel with its model, and what to say about those that cannot."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    data = {key: plain[key] for key in DATA if key in plain}
    face = data.get("face") or {}
    data["face"] = {key: face[key] for key in FACE if key in face}
    if not face.get("detector"):
        return data, ()
    return data, ("the run found faces by a detector, which stays behind: give the processor `faces`, their boxes",)


def check_graph(graph: Mapping[str, Any], folder: Path, model: OmniModel) -> None:
    """Build the graph once more, without weights, and compare: what weights had decided must stand in it.

    Raises:
        ValueError: some part of the model would be built otherwise.
    """
    with init_empty_weights(include_buffers=False):
        again: OmniModel = build(opened(graph, folder))
    shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in (model, again)]
    # which row of a table does not learn changes no answer
    parts = [
        {name: re.sub(r", padding_idx=\d+", "", repr(part)) for name, part in each.named_modules()}
        for each in (model, again)
    ]
    for ours, theirs in (shapes, parts):
        if wrong := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
            name = max(wrong, key=len)
            raise ValueError(
                f"{name} is {ours.get(name)} in the run, but its arguments alone make {theirs.get(name)}: its weights "
                "come from a checkpoint of another shape than our preset says; it cannot be released."
            )


def chat_template(template: str, system: str | None) -> str:
    """How a language model is spoken to, as a Jinja template for words alone.

    >>> chat_template("mistral", None)[:21]
    "{{ '<s>' }}{% for mes"
    """
    form: Template = TEMPLATES[template]
    begin = form.begin + ("" if system is None else form.system.format(system))
    said = (
        "{% set said = message['content'] if message['content'] is string else "
        "message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') %}"
    )
    turns = (
        f"{{% if message['role'] == 'user' %}}{{% if not loop.first %}}{{{{ {form.following!r} }}}}{{% endif %}}"
        f"{{{{ {form.ask!r} + said | trim + {form.answer!r} }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ said | trim + {form.end!r} }}}}"
        "{% else %}{{ raise_exception('user and assistant take turns; the system text is fixed') }}{% endif %}"
    )
    return f"{{{{ {begin!r} }}}}{{% for message in messages %}}{said}{turns}{{% endfor %}}"


def adapter_of(config: DictConfig, model: OmniModel) -> Adapter:
    """Take the adapters off a model -> peft's options and its tensors, by peft's names.

    Raises:
        ValueError: there are none.
    """
    from peft.tuners.lora import LoraLayer

    said = config.model.llm.get("lora")
    inner: nn.Module = model.llm.model
    adapted = [(name, part) for name, part in inner.named_modules() if isinstance(part, LoraLayer)]
    if not said or not adapted:
        raise ValueError("lora=adapter: the run has no LoRA; leave lora= out.")
    tensors = {
        f"base_model.model.{name.replace('.default', '')}": tensor.detach().clone()
        for name, tensor in inner.named_parameters()
        if ".lora_" in name
    }
    kinds, names = {name.rpartition(".")[2] for name, _ in adapted}, {name for name, _ in adapted}
    for name, part in adapted:
        inner.set_submodule(name, part.get_base_layer())
    more = {name for name, _ in inner.named_modules() if name.rpartition(".")[2] in kinds} - names
    options: Any = OmegaConf.to_container(said, resolve=True)
    return {**options, "target_modules": sorted(names if more else kinds)}, tensors


def save_adapter(options: Mapping[str, Any], tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write an adapter as peft and transformers read it."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    LoraConfig(**options, task_type="CAUSAL_LM", inference_mode=True).save_pretrained(out)
    save_file(dict(tensors), out / "adapter_model.safetensors", metadata={"format": "pt"})
