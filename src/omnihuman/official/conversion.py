"""Conversion of an official checkpoint to a model folder, tensor by tensor, with a report on every key."""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from omnihuman.build import compose_config, config_dir
from omnihuman.data.chat import Chat, describe_difference
from omnihuman.official.checkpoint import Checkpoint
from omnihuman.official.keys import KeyReport
from omnihuman.official.prompting import add_prompting
from omnihuman.template import build_template
from omnihuman.training.runs import Run
from omnihuman.training.safetensors_writer import Header, write_safetensors, write_sharded

log = logging.getLogger(__name__)

UNUSED_GENERATION_FIELDS = ("transformers_version", "_from_model_config", "bos_token_id", "pad_token_id")
"""Fields of a generation config that do not affect generation here."""

FOLDERS: dict[str, str] = {
    "humanomni": "humanomni",
    "llava_onevision": "llava_onevision",
    "videochat2": "videochat2",
    "facexformer": "facexformer",
    "umt": "umt",
    "siglip": "towers",
    "whisper": "towers",
    "bert": "towers",
    "qwen2": "towers",
    "mistral": "towers",
    "omnihuman": "omnihuman",
}
"""Value of ``official=`` -> folder beside this file, whose ``read.py`` has ``prepare(request, folder) -> Conversion``.

The files that ``prepare`` writes into ``folder`` become part of the result."""

CONFIG_KEYS = {
    "siglip": "model.encoders.video",
    "umt": "model.encoders.video",
    "facexformer": "model.encoders.face",
    "whisper": "model.encoders.audio",
    "bert": "model.encoders.instruction",
    "qwen2": "model.llm",
    "mistral": "model.llm",
}
"""Official model -> config key of the part that loads its folder."""

DTYPES = ("float32", "bfloat16", "float16")

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "generation_config.json",
)

VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")


@dataclass(frozen=True, slots=True)
class Request:
    """The user's options: the keys of ``conf/convert.yaml``.

    Attributes:
        official: a key of ``FOLDERS``.
        path: folder, file or hub id of the official checkpoint.
        out: folder to create.
        options: the other keys (``vision_tower``, ``tokenizer`` ...), ``None`` if they are not set.
        dtype: of all tensors; ``None`` keeps the dtype of each.
        overwrite: replace a folder that a conversion has created.
    """

    official: str
    path: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class MappedCheckpoint:
    """A checkpoint, and the name of each of its keys in the whole model or part."""

    checkpoint: Checkpoint
    report: KeyReport

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by our name."""
        return {name: self.checkpoint.headers[key].shape for key, name in self.report.names.items()}


class TensorSource(NamedTuple):
    """One tensor of a conversion: our name, and where it is read."""

    name: str
    key: str
    header: Header
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Conversion:
    """A prepared conversion: no tensor is read yet.

    Attributes:
        checkpoints: that the tensors come from.
        expected: our name -> shape, of all that the model needs (``parameter_shapes`` of a model on the meta device).
        config: of a model folder, without ``weights:``; ``None`` for a part's folder (``model.safetensors`` and
            ``config.json``).
        sizes: the ``config.json`` of a part's folder.
        official: the official ``config.json`` as read.
        hints: pattern of our names -> what to do if such a parameter is missing.
        notes: for the user.
        prompting: name of a yaml in ``conf/prompting``: how the authors ask the model; ``None`` if that is unknown.
        prompting_options: what the checkpoint itself says about it, in place of that file's options.
    """

    checkpoints: tuple[MappedCheckpoint, ...]
    expected: Mapping[str, tuple[int, ...]]
    config: DictConfig | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    official: Mapping[str, Any] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prompting: str | None = None
    prompting_options: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self) -> Iterator[TensorSource]:
        """Yield the source of every tensor, in the order of the files."""
        for mapped in self.checkpoints:
            for key, name in mapped.report.names.items():
                yield TensorSource(name, key, mapped.checkpoint.headers[key], mapped.checkpoint)


def convert(request: Request) -> Path:
    """Convert a checkpoint, report on every key, and return the folder, which is created complete or not at all.

    Raises:
        ValueError: the request, the checkpoint or a file that it needs is invalid.
    """
    _check_request(request)
    out = request.out
    folder = out.with_name(f"{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted conversion may have left it
    folder.mkdir(parents=True)
    try:
        reader = import_module(f"{__package__}.{FOLDERS[request.official]}.read")
        conversion: Conversion = reader.prepare(request, folder)
        check_tensors(conversion)
        write_folder(conversion, request, folder)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def _check_request(request: Request) -> None:
    if request.official not in FOLDERS:
        raise ValueError(f"official={request.official}: choose from {', '.join(FOLDERS)}.")
    if request.dtype is not None and request.dtype not in DTYPES:
        raise ValueError(f"dtype={request.dtype}: choose from {', '.join(DTYPES)}, or leave it out to keep each.")
    if request.options.get("stages") is not None:
        check_stages(request.options["stages"])
    if not request.out.exists():
        return
    if not (request.out / "keys.tsv").is_file():
        raise ValueError(f"out={request.out} exists already: choose another.")
    if not request.overwrite:
        raise ValueError(f"out={request.out} exists already: choose another, or overwrite=true.")


def check_tensors(conversion: Conversion) -> None:
    """Compare the tensors of the checkpoints with the parameters of the model.

    Raises:
        ValueError: a parameter is missing, duplicate, unexpected, of another shape, or not a float.
    """
    tensors: dict[str, TensorSource] = {}
    for tensor in conversion.tensors():
        if tensor.name in tensors:
            first = tensors[tensor.name]
            raise ValueError(
                f"{tensor.name} is in two places, {first.header.file} ({first.key}) and {tensor.header.file} "
                f"({tensor.key}): remove one of them."
            )
        _check_tensor(tensor, conversion.expected.get(tensor.name))
        tensors[tensor.name] = tensor
    unexpected = sorted(set(tensors) - set(conversion.expected))
    if unexpected:
        raise ValueError(
            f"{len(unexpected)} keys of the checkpoint are not in the model that the configuration describes, the "
            f"first {[tensors[name].key for name in unexpected[:3]]}: is it the configuration of this checkpoint?"
        )
    missing = sorted(set(conversion.expected) - set(tensors))
    if missing:
        hints = sorted(_find_hints(missing, conversion.hints)) or ["is the download complete?"]
        raise ValueError(f"{len(missing)} parameters are missing, the first {missing[:3]}: {'; '.join(hints)}")


def _check_tensor(tensor: TensorSource, expected: tuple[int, ...] | None) -> None:
    header = tensor.header
    if not header.dtype.is_floating_point:
        raise ValueError(
            f"{header.file}: {tensor.key} is {_dtype_name(header.dtype)}, weights must be floats: is the checkpoint "
            "quantised, or another model's?"
        )
    if expected is not None and header.shape != expected:
        raise ValueError(
            f"{header.file}: {tensor.key} is {list(header.shape)}, {tensor.name} of the model that the configuration "
            f"describes is {list(expected)}: do they belong together?"
        )


def _find_hints(missing: list[str], hints: Mapping[str, str]) -> set[str]:
    matches = set()
    for pattern, hint in hints.items():
        if any(fnmatchcase(name, pattern) for name in missing):
            matches.add(hint)
    return matches


def write_folder(conversion: Conversion, request: Request, folder: Path) -> None:
    """Write the model folder: weights, configuration, ``digest``, ``keys.tsv``, ``official.json``, ``finished``."""
    headers: dict[str, Header] = {}
    sources: dict[str, TensorSource] = {}
    for tensor in conversion.tensors():
        sources[tensor.name] = tensor
        headers[tensor.name] = tensor.header
        if request.dtype:
            headers[tensor.name] = tensor.header._replace(dtype=getattr(torch, request.dtype))

    def read(name: str) -> Tensor:
        return sources[name].checkpoint[sources[name].key]

    if conversion.config is not None:
        notes = compare_templates(folder / "tokenizer", conversion.config.model.llm.template)
        if prompting := request.options.get("prompting") or conversion.prompting:
            options, num_frames = conversion.prompting_options, request.options.get("frames")
            notes = (*notes, add_prompting(conversion.config, prompting, options, num_frames))
        conversion = replace(conversion, notes=(*conversion.notes, *notes))
    print(format_report(conversion, headers))
    metadata = {"official": request.official}
    if conversion.config is None:
        write_safetensors(folder / "model.safetensors", headers, read, metadata)
        (folder / "config.json").write_text(json.dumps(dict(conversion.sizes), indent=2) + "\n")
    else:
        digest = write_sharded(folder / "weights.safetensors", headers, read, metadata)
        if request.options.get("stages") is not None:
            conversion.config.stages = request.options["stages"]
        conversion.config.model.llm.generation = read_generation_config(folder / "tokenizer")
        OmegaConf.save(conversion.config, folder / "config.yaml")
        text = (folder / "config.yaml").read_bytes()
        digest = hashlib.sha256(digest.encode() + text).hexdigest()[:16]
        Run(folder, digest, digest).write_identity()
    (folder / "keys.tsv").write_text("\n".join(["file\tkey\tstatus\tname or reason", *_key_rows(conversion), ""]))
    options = {key: value for key, value in request.options.items() if value is not None}
    record = {
        "official": request.official,
        "path": request.path,
        "options": options,
        "config": dict(conversion.official),
    }
    (folder / "official.json").write_text(json.dumps(record, indent=2) + "\n")
    if conversion.config is not None:
        Run(folder, "").finish()


def check_stages(names: Any) -> None:
    """Check that ``stages=`` is a list of experiments.

    Raises:
        ValueError: it is not.
    """
    known = sorted(path.stem for path in (Path(config_dir()) / "experiment").glob("*.yaml"))
    if not isinstance(names, Sequence) or isinstance(names, str) or not set(names) <= set(known):
        raise ValueError(f"stages={names}: expected a list of experiments: {', '.join(known)}.")


def format_report(conversion: Conversion, headers: Mapping[str, Header]) -> str:
    """Return the report on the keys as lines of text: the taken keys by part, the dropped keys by reason."""
    parts = Counter(".".join(name.split(".")[:2]) for name in headers)
    dtypes = Counter(_dtype_name(header.dtype) for header in headers.values())
    dropped = Counter[str]()
    for mapped in conversion.checkpoints:
        dropped.update(mapped.report.dropped.values())
    millions = sum(torch.Size(header.shape).numel() for header in headers.values()) / 1e6
    counts = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common())
    lines = [f"taken     {count:6d}  {part}" for part, count in sorted(parts.items())]
    lines += [f"dropped   {count:6d}  {reason}" for reason, count in dropped.most_common()]
    lines.append("missing        0")
    lines.append(f"in all    {len(headers):6d}  tensors, {millions:.1f} M values, {counts}")
    lines += [f"note      {note}" for note in conversion.notes]
    return "\n".join(lines)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def change_experiment(name: str, size: str, changes: Mapping[str, Any]) -> DictConfig:
    """Return the config of an experiment with changed and added values, for a model folder."""
    config = compose_config([f"+experiment={name}", f"size={size}"])
    OmegaConf.set_struct(config, False)
    merged = OmegaConf.merge(config, changes)
    assert isinstance(merged, DictConfig)
    return merged


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by name; tied parameters appear once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer unchanged.

    Raises:
        ValueError: ``source`` has no tokenizer.
    """
    files = set[Path]()
    for pattern in TOKENIZER_FILES:
        files.update(file for file in source.glob(pattern) if file.is_file())
    if not any(file.name in VOCABULARY_FILES for file in files):
        raise ValueError(f"{source} holds no tokenizer: give tokenizer=<folder or hub id>.")
    target.mkdir(exist_ok=True)
    for file in files:
        shutil.copyfile(file, target / file.name)


def compare_templates(tokenizer: Path, template: DictConfig) -> tuple[str, ...]:
    """Return a note if prompts of a chat template differ from those of the tokenizer's own, or cannot be built.

    Args:
        tokenizer: folder.
        template: of ``conf/llm/template``.
    """
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    try:
        difference = describe_difference(Chat(loaded, build_template(template, loaded)))
    except ValueError as error:  # such as a special token that the tokenizer splits: no model can be trained with it
        return (str(error),)
    return () if difference is None else (difference,)


def read_generation_config(folder: Path) -> dict[str, Any] | None:
    """Return the generation options of a checkpoint: ``repetition_penalty``, the end-of-turn tokens ..."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return None
    fields: dict[str, Any] = json.loads(file.read_text())
    return {key: value for key, value in fields.items() if key not in UNUSED_GENERATION_FIELDS}


def _key_rows(conversion: Conversion) -> Iterator[str]:
    for mapped in conversion.checkpoints:
        for key, header in mapped.checkpoint.headers.items():
            if key in mapped.report.dropped:
                outcome = f"dropped\t{mapped.report.dropped[key]}"
            else:
                outcome = f"taken\t{mapped.report.names[key]}"
            yield f"{header.file.name}\t{key}\t{outcome}"


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


def format_usage(official: str, arguments: Mapping[str, Any]) -> str:
    """Return the overrides that load the folder into a model, for a command line."""
    overrides = []
    for key, value in arguments.items():
        text = str(value).replace(" ", "")
        overrides.append(f"{CONFIG_KEYS[official]}.{key}={text}")
    return "use it: " + " ".join(overrides)
