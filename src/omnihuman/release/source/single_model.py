"""Conversion of a single model (of the hub, FaceXFormer or UMT) to a folder that our part loads by ``weights``."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnihuman.convert import facexformer, towers, videochat2
from omnihuman.convert.checkpoint import KeyReport
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.encoder.umt import UMT
from omnihuman.release.checkpoint_reader import Checkpoint, Header, open_checkpoint, read_config, resolve_path
from omnihuman.release.convert import Conversion, MappedCheckpoint, Request, copy_tokenizer, parameter_shapes
from omnihuman.release.source.humanomni_reader import TOWER_SIZES

Shapes = Mapping[str, tuple[int, ...]]

CONFIG_KEYS = {
    "siglip": "model.encoders.video",
    "umt": "model.encoders.video",
    "facexformer": "model.encoders.face",
    "whisper": "model.encoders.audio",
    "bert": "model.encoders.instruction",
    "qwen2": "model.llm",
    "mistral": "model.llm",
}
"""Source -> config key of the part that loads its folder."""

CHAT_TEMPLATES = {"qwen2": "chatml", "mistral": "mistral"}
"""Source -> name of the language model's chat template."""

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

HEAD_DIM = 64
"""Width of an attention head in every UMT, and in BERT, whose sizes a Q-Former has."""

NO_NORM = "UMT's own file has no vision_layernorm: it is initialized with 1 and 0, as in VideoChat2's stage 1"
OTHER_PART = "another part: source=videochat2 reads it"


def prepare(request: Request, folder: Path) -> Conversion:
    """Prepare the conversion of a single model, and copy its tokenizer if it has one.

    Raises:
        ValueError: it is another kind of model, or its files contradict each other.
    """
    if request.source == "facexformer":
        return _prepare_facexformer(request)
    if request.source == "umt":
        return _prepare_umt(request)
    return _prepare_hub(request, folder)


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
        cure = f"give source={actual}" if actual in CONFIG_KEYS else "choose the source that fits"
        raise ValueError(
            f"{folder}/config.json: unexpected model_type {actual!r}; source={source} expects {model_type!r}: {cure}."
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


def _prepare_hub(request: Request, folder: Path) -> Conversion:
    source = request.source
    checkpoint = open_checkpoint(request.path)
    official = read_config(checkpoint.folder)
    config = build_hub_config(source, official, checkpoint.folder)
    report = towers.report_keys(checkpoint, source, bool(getattr(config, "tie_word_embeddings", False)))
    weights = str(request.out.absolute())
    arguments = {"weights": weights, **{key: getattr(config, key) for key in TOWER_SIZES.get(source, ())}}
    tokenizer = resolve_path(request.options.get("tokenizer") or checkpoint.folder)
    if source == "bert":
        save_bert_tokenizer(tokenizer, folder / "tokenizer", "tokenizer")
        arguments["tokenizer"] = f"{weights}/tokenizer"
    elif source in CHAT_TEMPLATES:
        copy_tokenizer(tokenizer, folder / "tokenizer")
        arguments |= {"tokenizer": f"{weights}/tokenizer", "template": CHAT_TEMPLATES[source]}
    return Conversion(
        (MappedCheckpoint(checkpoint, report),),
        parameter_shapes(build_hub_model(source, config)),
        sizes=config.to_dict(),
        official=official,
        notes=(_usage(source, arguments),),
    )


def find_single_file(path: str) -> Path:
    """Return the file of that path, or the only ``.pt`` or ``.pth`` file of that folder or repository.

    Raises:
        ValueError: the folder has no such file, or several.
    """
    local = resolve_path(path)
    if local.is_file():
        return local
    files = sorted([*local.rglob("*.pt"), *local.rglob("*.pth")])
    if len(files) != 1:
        listed = ", ".join(str(file.relative_to(local)) for file in files[:6]) or "none"
        raise ValueError(f"{local} has {len(files)} files .pt or .pth ({listed}): give path=<one of them>.")
    return files[0]


def resolve_option(options: Mapping[str, Any], key: str, default: str) -> Path:
    """Return the local path of an option or, if it is not set, of its default hub id.

    Raises:
        ValueError: the path does not exist; the message names the option.
    """
    try:
        return resolve_path(options.get(key) or default)
    except ValueError as error:
        raise ValueError(f"{error} Give {key}=<folder or hub id>.") from error


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
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{source} holds no tokenizer ({reason}): give {option}=<folder or hub id of a BERT with one>."
        ) from error


def _prepare_facexformer(request: Request) -> Conversion:
    file = find_single_file(request.path)
    checkpoint = open_checkpoint(file, wrappers=(facexformer.ENTRY,))
    mapped = MappedCheckpoint(checkpoint, facexformer.report_keys(checkpoint))
    shapes = mapped.shapes()
    find_shape(file, shapes, "linears.0.weight")  # at least one stage
    depths, num_heads, windows = [], [], []
    for stage in range(count_names(shapes, "linears.{}.weight")):
        table = f"features.{2 * stage + 1}.{{}}.attn.relative_position_bias_table"
        window, heads = find_shape(file, shapes, table.format(0))
        depths.append(count_names(shapes, table))
        num_heads.append(heads)
        windows.append(window)
    sizes: dict[str, Any] = {
        "embed_dim": find_shape(file, shapes, "features.0.0.weight")[0],
        "depths": depths,
        "num_heads": num_heads,
        "window_size": (math.isqrt(windows[0]) + 1) // 2,
        "dim": find_shape(file, shapes, "fuse.weight")[0],
    }
    with torch.device("meta"):
        model = FaceXFormer(image_size=32, **sizes)
    note = _usage("facexformer", {"weights": str(request.out.absolute()), **sizes})
    return Conversion((mapped,), parameter_shapes(model), sizes=sizes, notes=(note,))


def infer_umt_sizes(shapes: Shapes, file: Path) -> dict[str, Any]:
    """Return the arguments of our encoder, from the shapes of its parameters; no file has its table of positions.

    Raises:
        ValueError: the checkpoint has no vision encoder.
    """
    hidden, _, _, patch, _ = find_shape(file, shapes, "patch_embed.weight")
    return {
        "patch_size": patch,
        "hidden_size": hidden,
        "intermediate_size": find_shape(file, shapes, "blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": count_names(shapes, "blocks.{}.norm1.weight") + 1,
        "num_attention_heads": hidden // HEAD_DIM,
        "table_frames": 4,
        "table_side": 14,
    }


def _prepare_umt(request: Request) -> Conversion:
    checkpoint = open_checkpoint(find_single_file(request.path), wrappers=("model", "module"))
    report = videochat2.report_keys(checkpoint, videochat2.count_blocks(checkpoint))
    prefix = "encoders.video."
    names: dict[str, str] = {}
    dropped = dict(report.dropped)
    for key, name in report.names.items():
        if name.startswith(prefix):
            names[key] = name.removeprefix(prefix)
        else:
            dropped[key] = OTHER_PART
    mapped = MappedCheckpoint(checkpoint, KeyReport(names, dropped))
    sizes = infer_umt_sizes(mapped.shapes(), checkpoint.path)
    with torch.device("meta"):
        model = UMT(image_size=14 * sizes["patch_size"], **sizes)
    checkpoints = [mapped]
    notes = [_usage("umt", {"weights": str(request.out.absolute()), "file": "null", **sizes})]
    is_umt_file = len(names) == len(report.names)
    if is_umt_file and "vision_layernorm.weight" not in names.values():
        norm = {
            "vision_layernorm.weight": torch.ones(sizes["hidden_size"]),
            "vision_layernorm.bias": torch.zeros(sizes["hidden_size"]),
        }
        checkpoints.append(add_tensors(norm))
        notes.append(NO_NORM)
    return Conversion(tuple(checkpoints), parameter_shapes(model), sizes=sizes, notes=tuple(notes))


def add_tensors(values: Mapping[str, Tensor]) -> MappedCheckpoint:
    """Return a checkpoint in memory, of parameters that no official file has."""
    return MappedCheckpoint(_MemoryCheckpoint(values), KeyReport({name: name for name in values}, {}))


class _MemoryCheckpoint(Checkpoint):
    def __init__(self, values: Mapping[str, Tensor]) -> None:
        path = Path("initialized")
        super().__init__(path, {name: Header(tuple(value.shape), value.dtype, path) for name, value in values.items()})
        self._values = dict(values)

    def __getitem__(self, key: str) -> Tensor:
        return self._values[key]


def find_shape(file: Path, shapes: Shapes, name: str) -> tuple[int, ...]:
    """Return the shape of a parameter.

    Raises:
        ValueError: the checkpoint ``file`` does not have it.
    """
    if name not in shapes:
        raise ValueError(f"{file} has no key for {name}: is the download complete?")
    return shapes[name]


def count_names(names: Iterable[str], pattern: str) -> int:
    """Return how many names of the pattern exist without a gap, counted from 0."""
    names = set(names)
    return next(number for number in itertools.count() if pattern.format(number) not in names)


def _usage(source: str, arguments: Mapping[str, Any]) -> str:
    """Return the overrides that load the folder into a model, for a command line."""
    overrides = []
    for key, value in arguments.items():
        text = str(value).replace(" ", "")
        overrides.append(f"{CONFIG_KEYS[source]}.{key}={text}")
    return "use it: " + " ".join(overrides)
