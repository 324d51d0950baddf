"""Export of a model folder to one folder that transformers loads."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, GenerationConfig

from omnihuman.build import build
from omnihuman.hub.card import example_argument, find_bases, write_card
from omnihuman.hub.configuration import OmniHumanConfig
from omnihuman.hub.graph import build_graph, parse_graph
from omnihuman.hub.huggingface import OmniHumanForCausalLM
from omnihuman.hub.processor import DATA_OPTIONS, FACE_OPTIONS, OmniHumanProcessor
from omnihuman.inference.prompting import QUESTION, choose_prompting
from omnihuman.model.omni import OmniModel
from omnihuman.template import Template
from omnihuman.training.model_folder import load_model
from omnihuman.training.safetensors_writer import apply_umask

Adapter = tuple[dict[str, Any], dict[str, Tensor]]
"""Options of peft's LoraConfig, and the tensors by peft's names."""

MAX_NEW_TOKENS = 128
"""As in ``conf/generate.yaml``."""


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        example: an argument of the processor for the media that the model reads.
        notes: differences between the folder and the run.
    """

    example: str
    notes: tuple[str, ...]


def export(
    folder: Path,
    out: Path,
    *,
    lora: str = "merge",
    max_shard_size: str = "5GB",
    dtype: str | None = None,
    repository: str | None = None,
) -> Export:
    """Write a model folder in Hugging Face form; a conversion that nobody has trained has the options of its authors.

    Args:
        folder: of a run or a converted checkpoint.
        out: a new or empty folder.
        lora: ``merge`` LoRA into the weights, or save it as an ``adapter`` of peft beside the base model.
        max_shard_size: of one file of weights: ``5GB``.
        dtype: of the parameters; ``None`` does not change it.
        repository: on the hub to which the folder goes, for its card.

    Raises:
        ValueError: ``out`` is not empty, ``folder`` is not a model folder, or the options do not fit it.
    """
    if lora not in ("merge", "adapter"):
        raise ValueError(f"lora={lora}: choose from merge, adapter.")
    check_out(out)
    prompting = choose_prompting(folder, None)
    change = None if prompting is None else prompting.apply
    config, model = load_model(folder, merge_lora=lora == "merge", dtype=dtype, change=change)
    adapter = extract_adapter(config, model) if lora == "adapter" else None
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    if len(dtypes) > 1:
        raise ValueError(
            f"{folder}: parameters are {' and '.join(dtypes)}; expected one dtype: give dtype={dtypes[0]}."
        )
    with open_folder(out) as staging:
        notes = _write_folder(folder, config, model, staging, max_shard_size, adapter, repository)
    if prompting is not None and prompting.question != QUESTION:
        notes = (*notes, f"the processor takes questions as they are; its authors ask {prompting.question!r}")
    return Export(example_argument(model), notes)


def check_out(out: Path) -> None:
    """Check that a folder is new or empty.

    Raises:
        ValueError: it is not.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out={out} exists and is not empty: name a new folder.")


@contextmanager
def open_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write to, which becomes ``out`` if nothing fails, and is deleted otherwise.

    Raises:
        ValueError: ``out`` is not new or empty, or a file cannot be written.
    """
    check_out(out)
    staging = out.with_name(f"{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        apply_umask(staging)
        if out.exists():
            out.rmdir()
        staging.rename(out)
    except SafetensorError as error:  # raised on a full disk, and not an OSError
        raise ValueError(f"out={out}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_folder(
    folder: Path,
    config: DictConfig,
    model: OmniModel,
    out: Path,
    max_shard_size: str,
    adapter: Adapter | None,
    repository: str | None,
) -> tuple[str, ...]:
    """Write all files of a released folder, and return the notes on it."""
    graph, tokenizers = build_graph(config.model, model)
    model.llm.tokenizer = read_tokenizer(tokenizers.pop("."), model.llm.template)
    for name, source in tokenizers.items():
        AutoTokenizer.from_pretrained(source).save_pretrained(out / name)
    model.llm.tokenizer.save_pretrained(out)
    check_graph(graph, out, model)
    bases = list(dict.fromkeys(find_bases(folder, config)))
    stages = list(config.get("stages") or ())
    released = OmniHumanForCausalLM(OmniHumanConfig(graph=graph, bases=bases, stages=stages), model)
    llm = model.llm
    released.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=llm.end_ids, pad_token_id=llm.end_id
    )
    released.save_pretrained(out, max_shard_size=max_shard_size)
    data, notes = select_data_options(config.data)
    template = llm.tokenizer.chat_template
    OmniHumanProcessor(llm.tokenizer, graph, data, str(out), chat_template=template).save_pretrained(out)
    if adapter is not None:
        save_adapter(*adapter, out / "adapter")
    has_adapter = adapter is not None
    write_card(folder, config, model, out, repository=repository, has_adapter=has_adapter, notes=notes)
    return notes


def read_tokenizer(source: str, template: Template) -> Any:
    """Return a tokenizer with a chat template of ours."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = build_chat_template(template)
    return tokenizer


def select_data_options(config: DictConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the data options that are released with the model, and notes on those that cannot be."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    data = {key: plain[key] for key in DATA_OPTIONS if key in plain}
    face = data.get("face") or {}
    data["face"] = {key: face[key] for key in FACE_OPTIONS if key in face}
    if not face.get("detector"):
        return data, ()
    return data, ("the run used a face detector, which is not released: give the processor bounding boxes as `faces`",)


def check_graph(graph: Mapping[str, Any], folder: Path, model: OmniModel) -> None:
    """Build the graph without weights, and check that it is the same model: sizes from weights must be in the graph.

    Raises:
        ValueError: a part of the model differs.
    """
    with init_empty_weights(include_buffers=False):
        rebuilt: OmniModel = build(parse_graph(graph, folder))
    for actual, expected in (
        (_tensor_shapes(rebuilt), _tensor_shapes(model)),
        (_module_signatures(rebuilt), _module_signatures(model)),
    ):
        different = [key for key in actual.keys() | expected.keys() if actual.get(key) != expected.get(key)]
        if different:
            name = max(sorted(different), key=len)
            raise ValueError(
                f"{name} is {expected.get(name)} in the run, but {actual.get(name)} by its arguments alone: its "
                "weights come from a checkpoint of another shape than our preset; it cannot be released."
            )


def _tensor_shapes(model: OmniModel) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _module_signatures(model: OmniModel) -> dict[str, Any]:
    """Return the repr of every module; ``padding_idx`` is removed, as it affects the gradient only."""
    return {name: re.sub(r", padding_idx=\d+", "", repr(part)) for name, part in model.named_modules()}


def build_chat_template(template: Template) -> str:
    """Return the chat template of a language model in Jinja, for text alone.

    >>> build_chat_template(Template("mistral", "[INST] {} [/INST]", "{}</s>", ("<s>", "</s>"), begin="<s>"))[:21]
    "{{ '<s>' }}{% for mes"
    """
    text = (
        "{% set text = message['content'] if message['content'] is string else "
        "message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') %}"
    )
    turns = (
        "{% if message['role'] == 'user' %}"
        f"{{% if not loop.first %}}{{{{ {template.turn_separator!r} }}}}{{% endif %}}"
        f"{{{{ {template.question_start!r} + text | trim + {template.answer_start!r} }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ text | trim + {template.end_of_turn!r} }}}}"
        "{% else %}{{ raise_exception('user and assistant take turns; the system text is fixed') }}{% endif %}"
    )
    return f"{{{{ {template.open(template.system)!r} }}}}{{% for message in messages %}}{text}{turns}{{% endfor %}}"


def extract_adapter(config: DictConfig, model: OmniModel) -> Adapter:
    """Remove LoRA from a model, and return peft's options and its tensors, by peft's names.

    Raises:
        ValueError: the model has no LoRA.
    """
    from peft.tuners.lora import LoraLayer

    lora = config.model.llm.get("lora")
    llm: nn.Module = model.llm.model
    layers = {name: layer for name, layer in llm.named_modules() if isinstance(layer, LoraLayer)}
    if not lora or not layers:
        raise ValueError("lora=adapter: the run has no LoRA; leave lora= out.")
    tensors = {}
    for name, tensor in llm.named_parameters():
        if ".lora_" in name:
            tensors[f"base_model.model.{name.replace('.default', '')}"] = tensor.detach().clone()
    for name, layer in layers.items():
        llm.set_submodule(name, layer.get_base_layer())
    # peft matches a target by the end of a module's name: full names are needed if another module has the same end.
    suffixes = {name.rpartition(".")[2] for name in layers}
    matches = {name for name, _ in llm.named_modules() if name.rpartition(".")[2] in suffixes}
    targets = suffixes if matches <= layers.keys() else layers.keys()
    options: Any = OmegaConf.to_container(lora, resolve=True)
    return {**options, "target_modules": sorted(targets)}, tensors


def save_adapter(options: Mapping[str, Any], tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write an adapter as peft and transformers load it."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    LoraConfig(**options, task_type="CAUSAL_LM", inference_mode=True).save_pretrained(out)
    save_file(dict(tensors), out / "adapter_model.safetensors", metadata={"format": "pt"})
