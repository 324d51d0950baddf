"""One model of the hub, FaceXFormer or UMT -> the plan of a folder that the part of that kind loads by ``weights``."""

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
from omnihuman.release.convert import Piece, Plan, Request, copy_tokenizer, parameters
from omnihuman.release.shards import Checkpoint, Header, local, open_checkpoint, read_config
from omnihuman.release.source.humanomni_parts import SIZES

WHERE = {
    "siglip": "model.encoders.video", "umt": "model.encoders.video", "facexformer": "model.encoders.face",
    "whisper": "model.encoders.audio", "bert": "model.encoders.instruction", "qwen2": "model.llm",
    "mistral": "model.llm",
}  # fmt: skip
"""Source -> the part of a model that such a folder is for."""

TEMPLATES = {"qwen2": "chatml", "mistral": "mistral"}
"""Source -> how the language model is spoken to."""

ARCHITECTURE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "intermediate_size", "max_position_embeddings", "rms_norm_eps", "head_dim",
                "sliding_window", "tie_word_embeddings")  # fmt: skip

HEAD_DIM = 64
"""Width of a head in every UMT, and in BERT, whose size a Q-Former has."""

NO_NORM = "UMT's own file has no vision_layernorm: it begins as 1 and 0, as in VideoChat2's stage 1"
ELSEWHERE = "another part: source=videochat2 takes it"


def plan(request: Request, folder: Path) -> Plan:
    """What becomes of a single model; a tokenizer that lies beside it is put into ``folder``.

    Raises:
        ValueError: it is no model of that kind, or its files contradict each other.
    """
    makers = {"facexformer": _facexformer, "umt": _umt}
    return makers.get(request.source, _hub)(request, folder)


def hub_config(source: str, official: Mapping[str, Any], where: Path) -> Any:
    """The configuration of the model that our part reads, every field spelled out.

    Args:
        source: ``siglip``, ``whisper``, ``bert``, ``qwen2`` or ``mistral``.
        official: fields of ``config.json``; of a SigLIP's two towers the vision tower's are taken.
        where: it was read, for the message.

    Raises:
        ValueError: it is another model's.
    """
    from transformers import AutoConfig

    fields = dict(official)
    if source == "siglip" and fields.get("model_type") == "siglip":
        fields = {"model_type": "siglip_vision_model"} | dict(fields.get("vision_config") or {})
    kind = {"siglip": "siglip_vision_model"}.get(source, source)
    if fields.get("model_type") != kind:
        fits = next((word for word in WHERE if word == str(official.get("model_type"))), None)
        raise ValueError(
            f"{where}/config.json is of a {official.get('model_type')!r}, source={source} reads a {kind!r}: "
            + (f"give source={fits}." if fits else "choose the source that fits.")
        )
    kept = {key: value for key, value in fields.items() if key not in ("architectures", "auto_map", "torch_dtype")}
    return AutoConfig.for_model(**kept | ({"vision_use_head": False} if source == "siglip" else {}))


def architecture(config: Any) -> dict[str, Any]:
    """The fields of a language model's configuration that decide what it is, for ``llm.architecture``."""
    kept = {key: getattr(config, key) for key in ARCHITECTURE if getattr(config, key, None) is not None}
    return kept | {"rope_parameters": dict(config.rope_parameters)}


def hub_model(source: str, config: Any) -> nn.Module:
    """The model whose parameters a folder of that source must hold, without memory."""
    from transformers import AutoModelForCausalLM, BertModel, SiglipVisionModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    makers: dict[str, Callable[[Any], Any]] = {
        "siglip": SiglipVisionModel,
        "whisper": WhisperEncoder,
        "bert": lambda config: BertModel(config, add_pooling_layer=False),
    }
    with torch.device("meta"):
        model = makers.get(source, AutoModelForCausalLM.from_config)(config)
    assert isinstance(model, nn.Module)
    return model


def _hub(request: Request, folder: Path) -> Plan:
    source = request.source
    found = open_checkpoint(request.path)
    official = read_config(found.folder)
    config = hub_config(source, official, found.folder)
    report = towers.report(found, source, tied=bool(getattr(config, "tie_word_embeddings", False)))
    use = {"weights": str(request.out.absolute())} | {key: getattr(config, key) for key in SIZES.get(source, ())}
    given = local(request.options.get("tokenizer") or found.folder)
    if source == "bert":
        save_words(given, folder / "tokenizer")
        use["tokenizer"] = f"{use['weights']}/tokenizer"
    elif source in TEMPLATES:
        copy_tokenizer(given, folder / "tokenizer")
        use |= {"tokenizer": f"{use['weights']}/tokenizer", "template": TEMPLATES[source]}
    return Plan(
        (Piece(found, report),),
        parameters(hub_model(source, config)),
        sizes=config.to_dict(),
        official=official,
        notes=(_use(source, use),),
    )


def one_file(path: str) -> Path:
    """The file of that path, or the only one of torch's in that folder or repository.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = local(path)
    if found.is_file():
        return found
    files = sorted(file for end in ("pt", "pth") for file in found.rglob(f"*.{end}"))
    if len(files) != 1:
        listed = ", ".join(str(file.relative_to(found)) for file in files[:6]) or "none"
        raise ValueError(f"{found} holds {len(files)} files .pt or .pth ({listed}): give path=<the one that is meant>.")
    return files[0]


def beside(options: Mapping[str, Any], key: str, otherwise: str) -> Path:
    """Where something lies that a checkpoint goes with: what the user said, or its hub id.

    Raises:
        ValueError: it is not there; the message names the option.
    """
    try:
        return local(options.get(key) or otherwise)
    except ValueError as error:
        raise ValueError(f"{error} Say where it is with {key}=<folder or hub id>.") from error


def save_words(place: Path, folder: Path) -> None:
    """BERT's tokenizer with the name of its class, which the released folder leaves to the model's config.json.

    Raises:
        ValueError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(place).save_pretrained(folder)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"{place} holds no tokenizer ({why}): give the folder or hub id of a BERT that does."
        ) from error


def _facexformer(request: Request, folder: Path) -> Plan:
    file = one_file(request.path)
    found = open_checkpoint(file, inside=(facexformer.ENTRY,))
    report = facexformer.report(found)
    shapes = {name: found.headers[key].shape for key, name in report.taken.items()}
    tables = [
        f"features.{2 * stage + 1}.{{}}.attn.relative_position_bias_table"
        for stage in range(count(shapes, "linears.{}.weight"))
    ]
    window, heads = zip(*(shape(file, shapes, table.format(0)) for table in tables), strict=True)
    sizes: dict[str, Any] = {
        "embed_dim": shape(file, shapes, "features.0.0.weight")[0],
        "depths": [count(shapes, table) for table in tables],
        "num_heads": list(heads),
        "window_size": (math.isqrt(window[0]) + 1) // 2,
        "dim": shape(file, shapes, "fuse.weight")[0],
    }
    with torch.device("meta"):
        model = FaceXFormer(image_size=32, **sizes)
    use = {"weights": str(request.out.absolute())} | sizes
    return Plan((Piece(found, report),), parameters(model), sizes=sizes, notes=(_use("facexformer", use),))


def umt_sizes(shapes: Mapping[str, tuple[int, ...]], where: Path) -> dict[str, Any]:
    """The arguments of our encoder, from the shapes of its parameters; its table of positions is in no file.

    Raises:
        ValueError: there is no vision encoder.
    """
    hidden, _, _, patch, _ = shape(where, shapes, "patch_embed.weight")
    return {
        "patch_size": patch,
        "hidden_size": hidden,
        "intermediate_size": shape(where, shapes, "blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": count(shapes, "blocks.{}.norm1.weight") + 1,
        "num_attention_heads": hidden // HEAD_DIM,
        "table_frames": 4,
        "table_side": 14,
    }


def _umt(request: Request, folder: Path) -> Plan:
    found = open_checkpoint(one_file(request.path), inside=("model", "module"))
    whole = videochat2.report(found, videochat2.blocks_of(found))
    prefix = "encoders.video."
    taken = {key: name.removeprefix(prefix) for key, name in whole.taken.items() if name.startswith(prefix)}
    others = {key: ELSEWHERE for key, name in whole.taken.items() if not name.startswith(prefix)}
    report = KeyReport(taken, {**whole.dropped, **others})
    sizes = umt_sizes({name: found.headers[key].shape for key, name in taken.items()}, found.path)
    with torch.device("meta"):
        model = UMT(image_size=14 * sizes["patch_size"], **sizes)
    use = {"weights": str(request.out.absolute()), "file": "null"} | sizes
    pieces, notes = [Piece(found, report)], [_use("umt", use)]
    if not others and "vision_layernorm.weight" not in taken.values():
        pieces.append(fresh({"vision_layernorm.weight": torch.ones(sizes["hidden_size"]),
                             "vision_layernorm.bias": torch.zeros(sizes["hidden_size"])}))  # fmt: skip
        notes.append(NO_NORM)
    return Plan(tuple(pieces), parameters(model), sizes=sizes, notes=tuple(notes))


def fresh(values: Mapping[str, Tensor]) -> Piece:
    """Parameters that no official file has, as a piece of their own."""
    return Piece(_Fresh(values), KeyReport({name: name for name in values}, {}))


class _Fresh(Checkpoint):
    def __init__(self, values: Mapping[str, Tensor]) -> None:
        where = Path("begins anew")
        super().__init__(where, {name: Header(tuple(each.shape), each.dtype, where) for name, each in values.items()})
        self._values = dict(values)

    def __getitem__(self, key: str) -> Tensor:
        return self._values[key]


def shape(where: Path, shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """The shape of a parameter.

    Raises:
        ValueError: the checkpoint (``where``) does not have it.
    """
    if name not in shapes:
        raise ValueError(f"{where} has nothing that becomes {name}: is the download complete?")
    return shapes[name]


def count(names: Iterable[str], pattern: str) -> int:
    """How many of the pattern's names are there, counted from 0."""
    names = set(names)
    return next(number for number in itertools.count() if pattern.format(number) not in names)


def _use(source: str, values: Mapping[str, Any]) -> str:
    """The words on a command line that take the folder into a model."""
    plain = {key: str(value).replace(" ", "") for key, value in values.items()}
    return "use it: " + " ".join(f"{WHERE[source]}.{key}={value}" for key, value in plain.items())
