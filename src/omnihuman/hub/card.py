"""The model card of a released folder: its parts, training, metrics and licences."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from omnihuman import gate
from omnihuman.build import register_resolvers
from omnihuman.modality import View
from omnihuman.model.omni import OmniModel

LICENCES: tuple[tuple[str, str, bool], ...] = (
    (r"Qwen/Qwen2\.5-3B", "Qwen Research License, not for commercial use", False),
    (r"Qwen/Qwen2(\.5)?-72B", "Qwen License Agreement", False),
    (r"Qwen/Qwen2(\.5)?-", "Apache-2.0", True),
    (r"mistralai/Mistral-7B", "Apache-2.0", True),
    (r"(google/)?siglip", "Apache-2.0", True),
    (r"(openai/)?whisper", "Apache-2.0 on the hub, MIT in OpenAI's repository", True),
    (r"(google-bert/)?bert-base", "Apache-2.0", True),
    (
        r"(kartiknarayan/facexformer|FaceXFormer)",
        "MIT; trained on face sets that are for research: treat it as such",
        False,
    ),
    (r"(OpenGVLab/)?VideoChat2", "Apache-2.0 on the hub", True),
    (r"(lmms-lab/llava-onevision|LLaVA-OneVision)", "Apache-2.0", True),
    (r"foundation/", "Apache-2.0, this project's own", True),
    (r"(StarJiaxing/)?(HumanOmni|R1-Omni)", "no licence file in its repository: ask its authors", False),
)
"""Pattern of the beginning of a base model's name, its licence, and whether the licence permits every use."""

HUB_ID = re.compile(r"(?!foundation/)[\w.-]+/[\w.-]+")
UNKNOWN = "see its repository"
OFFICIALS = {
    "humanomni": "HumanOmni",
    "llava_onevision": "LLaVA-OneVision",
    "videochat2": "VideoChat2",
    "facexformer": "FaceXFormer",
    "umt": "UMT",
    "omnihuman": "an exported omnihuman model",
}
QUESTION = "What is the main emotion?"
MAX_SCORES = 6
"""Scores of one evaluation in the card; the main ones come first in its file."""

MAX_DEPTH = 16
"""Parent runs in the list of stages."""


def write_card(
    folder: Path,
    config: DictConfig,
    model: OmniModel,
    out: Path,
    *,
    repository: str | None = None,
    has_adapter: bool = False,
    for_vllm: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Write ``README.md``.

    Args:
        folder: of the run.
        config: of the run.
        model: as it is released.
        out: the released folder.
        repository: on the hub, for the example; ``None`` for a folder of no repository.
        has_adapter: an adapter is beside the base model.
        for_vllm: the folder is the language model alone.
        notes: for the user.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("omnihuman.hub") / "card.md.j2").read_text(encoding="utf-8"))
    slots = _find_slots(model)
    ledger = _read_json(folder / "ledger.json")
    text = template.render(
        name=str(config.get("name") or folder.name),
        sentence=_summarize(model, slots),
        slots=slots,
        question=QUESTION,
        example=example_argument(model),
        source=repository or "path of this folder",
        has_adapter=has_adapter,
        for_vllm=for_vllm,
        pipeline=_find_pipeline(slots, for_vllm),
        notes=notes,
        inputs=list(_input_rows(config, model)),
        parts=list(_part_rows(model)),
        stages=list(list_stages(folder, config)),
        metrics=list(metric_rows(folder)),
        validation=[f"{key} {value:.4g}" for key, value in (ledger.get("best") or {}).items()],
        **_licence_fields(folder, config),
        **_training_fields(config, ledger),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _find_pipeline(slots: Sequence[str], for_vllm: bool) -> str:
    """Return the hub's name of the task."""
    if for_vllm:
        return "text-generation"
    return "video-text-to-text" if "video" in slots else "audio-text-to-text"


def _licence_fields(folder: Path, config: DictConfig) -> dict[str, Any]:
    licences = []
    is_free = True
    hub_ids = []
    for base in dict.fromkeys(find_bases(folder, config)):
        licence, is_base_free = find_licence(base)
        licences.append((base, licence))
        is_free = is_free and is_base_free
        if HUB_ID.fullmatch(base):
            hub_ids.append(base)
    return {"licences": licences, "is_free": is_free, "hub_ids": hub_ids}


def _training_fields(config: DictConfig, ledger: Mapping[str, Any]) -> dict[str, Any]:
    if not ledger:  # a converted checkpoint
        return {"recipe": [], "trainable": [], "data": []}
    return {
        "recipe": list(_recipe_rows(config, ledger)),
        "trainable": _trainable_rows(config),
        "data": list(_data_rows(config)),
    }


def example_argument(model: OmniModel) -> str:
    """Return an argument of the processor for the media that a model reads."""
    return 'video="clip.mp4"' if "video" in _find_slots(model) else 'audio="clip.wav"'


def _find_slots(model: OmniModel) -> list[str]:
    return list(View.of_fields(field for field, _ in model.transforms.values()).slots)


def find_licence(name: str) -> tuple[str, bool]:
    """Return the licence of a base model, and whether it permits every use.

    >>> find_licence("Qwen/Qwen2.5-7B-Instruct"), find_licence("Qwen/Qwen2.5-3B-Instruct")[1], find_licence("a/b")
    (('Apache-2.0', True), False, ('see its repository', False))
    """
    for pattern, licence, is_free in LICENCES:
        if re.match(pattern, name):
            return licence, is_free
    return UNKNOWN, False


def find_bases(folder: Path, config: DictConfig) -> Iterator[str]:
    """Yield the base models of a model: those of its parts, and the converted checkpoints that it or a parent is from.

    Only names: hub ids, ``foundation/siglip``, ``HumanOmni``; of a local folder only its last component.
    """
    plain: Any = OmegaConf.to_container(config.model, resolve=True)
    nodes = [*(plain.get("encoders") or {}).values(), *(plain.get("projectors") or {}).values(), plain["llm"]]
    for node in nodes:
        if isinstance(node, Mapping) and isinstance(node.get("weights"), str):
            yield _base_name(node["weights"])
    parents = [parent for parent, _ in _find_parents(folder, config) if parent is not None]
    for path in (folder, *parents):
        source = _read_json(path / "official.json")
        if source:
            yield from _source_bases(source)


def _source_bases(source: Mapping[str, Any]) -> Iterator[str]:
    """Yield the base models of a converted checkpoint, from its ``official.json``."""
    official = source.get("config") or {}
    bases = official.get("bases")
    if bases:  # an export lists its own base models
        yield from map(str, bases)
        return
    path = str(source.get("path") or "")
    if HUB_ID.fullmatch(path) and not Path(path).exists():
        yield path
    else:
        yield OFFICIALS.get(str(source["official"]), _base_name(path))
    for key in ("mm_vision_tower", "mm_audio_tower"):
        if official.get(key):
            yield _base_name(str(official[key]))


def _base_name(weights: str) -> str:
    path = Path(weights)
    if "foundation" in path.parts:
        return f"foundation/{path.name}"
    is_local = path.is_absolute() or path.exists() or weights.startswith((".", "~"))
    return path.name if is_local else weights


def list_stages(folder: Path, config: DictConfig, depth: int = 0) -> Iterator[tuple[int, str]]:
    """Yield the run and, one level deeper each, its parent runs, as far as their folders exist."""
    source = _read_json(folder / "official.json")
    if source:
        yield depth, f"{OFFICIALS.get(source['official'], source['official'])}, converted"
        return
    yield depth, _describe_run(folder, config)
    for parent, entry in _find_parents(folder, config):
        suffix = f", only {entry['only']}" if entry.get("only") else ""
        if parent is None or depth > MAX_DEPTH:
            yield depth + 1, f"{Path(str(entry.get('run') or entry.get('folder'))).name}{suffix}"
            continue
        (_, stage), *stages = list_stages(parent, _read_config(parent), depth + 1)
        yield depth + 1, f"{stage}{suffix}"
        yield from stages


def _describe_run(folder: Path, config: DictConfig) -> str:
    digest = ""
    if (folder / "digest").is_file():
        digest = (folder / "digest").read_text().split()[0]
    variant = f" ({config.variant})" if config.get("variant") else ""
    return f"{config.get('name') or folder.name}{variant}, `{digest}`"


def _find_parents(folder: Path, config: DictConfig) -> Iterator[tuple[Path | None, Mapping[str, Any]]]:
    """Yield the folders of ``init_from`` with their entries, ``None`` for a folder that does not exist."""
    variant = str(config.get("variant") or "")
    is_variant = bool(variant) and folder.name == Path(variant).name
    runs = folder.parents[1] if is_variant else folder.parent
    for entry in config.get("init_from") or []:
        parent = Path(str(entry.folder)) if entry.get("folder") else runs / str(entry.run)
        if variant and (parent / variant / "config.yaml").is_file():
            parent = parent / variant
        yield (parent if (parent / "config.yaml").is_file() else None), entry


def metric_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of metrics: the main scores of every evaluation of the run, with their intervals."""
    for file in sorted((folder / "evaluation").rglob("metrics.json")):
        metrics = _read_json(file)
        scores = {name: score for name, score in metrics.get("scores", {}).items() if "/" not in name}
        for name, score in list(scores.items())[:MAX_SCORES]:
            low, high = score.get("low"), score.get("high")
            interval = ""
            if low is not None and high is not None:
                interval = f"{low:.1f} to {high:.1f}"
            if score.get("judged"):
                name = f"{name} (judged)"
            value, count = f"{score['value']:.1f}", str(score["n"])
            yield str(metrics["benchmark"]), str(metrics["view"]), name, value, interval, count


def _input_rows(config: DictConfig, model: OmniModel) -> Iterator[tuple[str, str]]:
    data = config.data
    for name, (reads, transform) in model.transforms.items():
        options = []
        for key in ("size", "aspect", "num_bins", "samples", "max_length"):
            if getattr(transform, key, None) is not None:
                options.append(f"{key} {getattr(transform, key)}")
        yield f"{name} ({reads})", ", ".join(options)
    yield "frames of a video", str(data.num_frames)
    tokens = model.count_tokens({"frames": int(data.num_frames), "waveform": 160_000})
    counts = ", ".join(f"{count} of {slot}" for slot, count in tokens.items() if count)
    yield "tokens", f"{counts} (with 10 s of audio)"
    if any(reads == "faces" for reads, _ in model.transforms.values()):
        yield "faces", f"{data.face.region}, margin {data.face.margin}"
    yield "prompt", f"{model.llm.template.name}, markers {'on' if data.get('markers', True) else 'off'}"


def _part_rows(model: OmniModel) -> Iterator[tuple[str, str, int]]:
    for group in ("encoders", "early_fusions", "projectors", "fusions"):
        for name, part in getattr(model, group).items():
            yield f"{group}.{name}", type(part).__name__, _count_parameters(part)
    llm = model.llm.model
    yield "llm", type(llm).__name__, _count_parameters(llm)


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _recipe_rows(config: DictConfig, ledger: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seconds = ledger["seconds"]
    yield "command", f"`{_remove_folders(str(ledger.get('command', '')))}`"
    yield "samples", f"{ledger['trained']} of {ledger['planned']} planned"
    yield "steps", f"{ledger['steps']} of {config.recipe.batch_size} samples"
    yield "time", f"{seconds / 3600:.2f} h" if seconds > 360 else f"{seconds:.0f} s"
    optimizer = str(config.optimizer._target_).rpartition(".")[2]
    yield "optimizer", f"{optimizer}, precision {config.recipe.precision}, seed {config.seed}"


def _remove_folders(command: str) -> str:
    """Return a command line without the local folders in its paths.

    >>> _remove_folders("python -m omnihuman.train runs=/home/me/runs data.root='~/clips' +experiment=a/b")
    "python -m omnihuman.train runs=runs data.root='clips' +experiment=a/b"
    """
    return re.sub(r"(?<=[='\"\s,\[:])[~/][^\s'\",\]}]*/([^\s/'\",\]}]+)/?", r"\1", command)


def _trainable_rows(config: DictConfig) -> list[tuple[str, str]]:
    plain: Any = OmegaConf.to_container(config.trainable, resolve=True)
    return [(pattern, str(rate)) for pattern, rate in plain.items()]


def _data_rows(config: DictConfig) -> Iterator[tuple[str, str]]:
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    yield "records", _describe_records(data["records"])
    if all(target.endswith(".SampleSource") for target in _list_sources(data)):
        yield "corpus", "omnihuman's built-in one, drawn and voiced by a program; it shows no real people"
    tasks = data.get("tasks")
    if isinstance(tasks, Mapping):
        tasks = [f"{task} x {weight}" for task, weight in tasks.items()]
    if tasks:
        yield "tasks", ", ".join(tasks)
    yield "views", ", ".join(data.get("views") or [])


def _describe_records(records: Any) -> str:
    """Return the names of the files, or splits, of the records with their weights."""
    names = []
    for entry in _list_entries(records):
        source = entry["source"]
        if isinstance(source, Mapping):
            source = source.get("path") or source.get("split") or source["_target_"]
        name = Path(str(source)).name
        if "weight" in entry:
            name += f" x {entry['weight']}"
        names.append(name)
    return ", ".join(names)


def _list_sources(data: Mapping[str, Any]) -> list[str]:
    """Return the class of every source of records: its own, or that of ``data.source`` where it is a path."""
    targets = []
    for entry in _list_entries(data["records"]):
        source = entry["source"] if isinstance(entry["source"], Mapping) else data["source"]
        targets.append(str(source["_target_"]))
    return targets


def _list_entries(records: Any) -> Iterator[dict[str, Any]]:
    """Yield source, which may be a path, and weight of every entry of ``data.records``."""
    for entry in records if isinstance(records, list) else [records]:
        if not isinstance(entry, Mapping) or "_target_" in entry:
            yield {"source": entry}
        elif "path" in entry:
            yield {**entry, "source": entry["path"]}
        else:
            yield dict(entry)


def _summarize(model: OmniModel, slots: Sequence[str]) -> str:
    media = " and ".join(slots)
    return (
        f"A language model for {media} of people, with {_count_parameters(model) / 1e6:,.1f} M parameters, exported by "
        "omnihuman; its parts, its data path and its metrics are below."
    )


def _read_config(folder: Path) -> DictConfig:
    register_resolvers()
    return gate.read_config(folder / "config.yaml", folder)


def _read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.is_file() else {}
