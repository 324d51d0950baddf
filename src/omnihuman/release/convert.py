"""An official checkpoint -> a model folder, tensor by tensor; what becomes of every key is said and written down."""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from omnihuman.convert.checkpoint import KeyReport
from omnihuman.release.shards import Checkpoint, Header
from omnihuman.release.writing import write_safetensors

log = logging.getLogger(__name__)

SOURCES: dict[str, str] = {
    **{name: name for name in ("humanomni", "llava_onevision", "videochat2")},
    **dict.fromkeys(("facexformer", "umt", "siglip", "whisper", "bert", "qwen2", "mistral"), "parts"),
    "omnihuman": "exported",
}
"""Word of ``source=`` -> module of ``release.source`` with ``plan(request, folder) -> Plan``; what that puts into
``folder`` stays there."""

OTHERS = ("transformers_version", "_from_model_config", "bos_token_id", "pad_token_id")
"""Fields of a generation config that say nothing of how to generate."""

DTYPES = ("float32", "bfloat16", "float16")

TOKENIZER_FILES = ("tokenizer*", "vocab.*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
                   "chat_template*", "generation_config.json")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for: the keys of ``conf/convert.yaml``.

    Attributes:
        source: a word of ``SOURCES``.
        path: folder, file or hub id of the official checkpoint.
        out: folder to make.
        options: the other keys, ``None`` where nothing was said: ``vision_tower``, ``tokenizer`` ...
        dtype: of all tensors; ``None`` keeps what each has.
        overwrite: replace a folder that a conversion has made.
    """

    source: str
    path: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A checkpoint, and what becomes of each of its keys (taken under names of the whole model or part)."""

    checkpoint: Checkpoint
    report: KeyReport


@dataclass(frozen=True, slots=True)
class Plan:
    """What a source makes of what it was given.

    Attributes:
        pieces: where the tensors come from.
        expected: our name -> shape, of all that must be there (``parameters`` of a model on the meta device).
        config: of a model folder, without ``weights:``; ``None`` for a part's folder (``model.safetensors`` and
            ``config.json``).
        sizes: the ``config.json`` of a part's folder.
        official: the official ``config.json`` as read.
        cures: pattern of our names -> what to do where such a one is missing.
        notes: what the user should know.
    """

    pieces: tuple[Piece, ...]
    expected: Mapping[str, tuple[int, ...]]
    config: DictConfig | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    official: Mapping[str, Any] = field(default_factory=dict)
    cures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def taken(self) -> Iterator[tuple[str, str, Header, Checkpoint]]:
        """Our name, official key, header and checkpoint of every tensor, in the order of the files."""
        for piece in self.pieces:
            for key, name in piece.report.taken.items():
                yield name, key, piece.checkpoint.headers[key], piece.checkpoint


def convert(request: Request) -> Path:
    """Convert a checkpoint, report on every key, and return the folder, which appears whole or not at all.

    Raises:
        ValueError: the request, the checkpoint or what belongs to it does not hold.
    """
    if request.source not in SOURCES:
        raise ValueError(f"source={request.source}: choose from {', '.join(SOURCES)}.")
    if request.dtype is not None and request.dtype not in DTYPES:
        raise ValueError(f"dtype={request.dtype}: choose from {', '.join(DTYPES)}, or leave it out to keep each.")
    out = request.out
    if out.exists() and not (request.overwrite and (out / "keys.tsv").is_file()):
        cure = "choose another, or overwrite=true" if (out / "keys.tsv").is_file() else "choose another"
        raise ValueError(f"out={out} is there already: {cure}.")
    folder = out.with_name(f"{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # of a conversion that was killed
    folder.mkdir(parents=True)
    try:
        plan: Plan = import_module(f"omnihuman.release.source.{SOURCES[request.source]}").plan(request, folder)
        check(plan)
        write(plan, request, folder)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def check(plan: Plan) -> None:
    """Compare what there is with what the model needs.

    Raises:
        ValueError: a parameter is missing, twice there, unknown, of another shape, or no float.
    """
    found: dict[str, tuple[str, Header]] = {}
    for name, key, header, _ in plan.taken():
        if name in found:
            both = f"{found[name][1].file} ({found[name][0]}) and {header.file} ({key})"
            raise ValueError(f"{name} comes from two places, {both}: give one of both.")
        if not header.dtype.is_floating_point:
            kind = str(header.dtype).removeprefix("torch.")
            raise ValueError(
                f"{header.file}: {key} is {kind}, weights are floats: is it quantised, or another model's?"
            )
        found[name] = (key, header)
    for name, (key, header) in found.items():
        if name in plan.expected and header.shape != plan.expected[name]:
            raise ValueError(
                f"{header.file}: {key} is {list(header.shape)}, {name} of the model that the configuration describes "
                f"is {list(plan.expected[name])}: do they belong together?"
            )
    if foreign := sorted(set(found) - set(plan.expected)):
        raise ValueError(
            f"{len(foreign)} keys of the checkpoint have no place in the model that the configuration describes, the "
            f"first {[found[name][0] for name in foreign[:3]]}: is it the configuration of this checkpoint?"
        )
    if missing := sorted(set(plan.expected) - set(found)):
        cures = {cure for name in missing for pattern, cure in plan.cures.items() if fnmatchcase(name, pattern)} or {
            "is the download complete?"
        }
        raise ValueError(
            f"{len(missing)} parameters are in no file, the first {missing[:3]}: {'; '.join(sorted(cures))}"
        )


def write(plan: Plan, request: Request, folder: Path) -> None:
    """Write the folder of a plan: weights, configuration, ``digest``, ``keys.tsv`` and ``source.json``."""
    dtype = getattr(torch, request.dtype) if request.dtype else None
    headers = {name: header._replace(dtype=dtype or header.dtype) for name, _, header, _ in plan.taken()}
    places = {name: (checkpoint, key) for name, key, _, checkpoint in plan.taken()}

    def read(name: str) -> Tensor:
        checkpoint, key = places[name]
        return checkpoint[key]

    print(said(plan, headers))
    file = folder / ("model.safetensors" if plan.config is None else "weights.safetensors")
    digest = write_safetensors(file, headers, read, {"source": request.source})
    if plan.config is None:
        (folder / "config.json").write_text(json.dumps(dict(plan.sizes), indent=2) + "\n")
    else:
        plan.config.model.llm.generation = generation(folder / "tokenizer")
        OmegaConf.save(plan.config, folder / "config.yaml")
        text = (folder / "config.yaml").read_bytes()
        digest = hashlib.sha256(digest.encode() + text).hexdigest()[:16]
        (folder / "digest").write_text(f"{digest}\n{digest}\n")
    (folder / "keys.tsv").write_text("\n".join(["file\tkey\tfate\tours or why", *_lines(plan), ""]))
    options = {key: value for key, value in request.options.items() if value is not None}
    source = {"source": request.source, "path": request.path, "options": options, "config": dict(plan.official)}
    (folder / "source.json").write_text(json.dumps(source, indent=2) + "\n")


def said(plan: Plan, headers: Mapping[str, Header]) -> str:
    """The key report as a table in words: what was taken by part, what was dropped and why."""
    parts = Counter(".".join(name.split(".")[:2]) for name in headers)
    kinds = Counter(str(header.dtype).removeprefix("torch.") for header in headers.values())
    dropped = Counter(why for piece in plan.pieces for why in piece.report.dropped.values())
    millions = sum(torch.Size(header.shape).numel() for header in headers.values()) / 1e6
    lines = [f"taken     {count:6d}  {part}" for part, count in sorted(parts.items())]
    lines += [f"dropped   {count:6d}  {why}" for why, count in dropped.most_common()]
    lines += ["missing        0"]
    lines += [f"in all    {len(headers):6d}  tensors, {millions:.1f} M values, "
              + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())]  # fmt: skip
    return "\n".join([*lines, *(f"note      {note}" for note in plan.notes)])


def parameters(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all that a model must be given; what is tied stands once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer as they are.

    Raises:
        ValueError: there are none.
    """
    files = sorted({file for pattern in TOKENIZER_FILES for file in source.glob(pattern) if file.is_file()})
    if not any(file.name in ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model") for file in files):
        raise ValueError(f"{source} holds no tokenizer: give tokenizer=<folder or hub id>.")
    target.mkdir(exist_ok=True)
    for file in files:
        shutil.copyfile(file, target / file.name)


def generation(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says about generating with it: ``repetition_penalty``, the marks at which it ends ..."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return None
    said: dict[str, Any] = json.loads(file.read_text())
    return {key: value for key, value in said.items() if key not in OTHERS}


def _lines(plan: Plan) -> Iterator[str]:
    for piece in plan.pieces:
        fates = {key: f"taken\t{name}" for key, name in piece.report.taken.items()}
        fates |= {key: f"dropped\t{why}" for key, why in piece.report.dropped.items()}
        for key, header in piece.checkpoint.headers.items():
            yield f"{header.file.name}\t{key}\t{fates[key]}"
