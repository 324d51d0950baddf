"""The card of a released folder: what it is, what it was made of, how good it is, whose licences bind it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

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
"""Beginning of a base's name, what its licence is called, and whether it is free for every use."""

HUB = re.compile(r"(?!foundation/)[\w.-]+/[\w.-]+")
UNKNOWN = "see its repository"
SOURCES = {
    "humanomni": "HumanOmni", "llava_onevision": "LLaVA-OneVision", "videochat2": "VideoChat2",
    "facexformer": "FaceXFormer", "umt": "UMT", "omnihuman": "an exported omnihuman model",
}  # fmt: skip
QUESTION = "What is the main emotion?"
SCORES = 6
"""Scores of one evaluation that the card shows: the main ones stand first."""


def write_card(
    folder: Path, config: DictConfig, model: OmniModel, out: Path, *, adapted: bool = False, notes: Sequence[str] = ()
) -> None:
    """Write ``README.md``.

    Args:
        folder: of the run.
        config: of the run.
        model: as it is released.
        out: where to.
        adapted: an adapter lies beside the bare model.
        notes: what else its user must know.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("omnihuman.release.hub") / "card.md.j2").read_text(encoding="utf-8"))
    slots = _slots(model)
    bases = list(bases_of(folder, config))
    licences = [(name, *licence(name)) for name in dict.fromkeys(bases)]
    ledger = _json(folder / "ledger.json")
    name = str(config.get("name") or folder.name)
    text = template.render(
        name=name, sentence=_sentence(model, slots), slots=slots, question=QUESTION,
        example=medium_of(model),
        is_free=all(free for *_, free in licences), hub_ids=[base for base, *_ in licences if HUB.fullmatch(base)],
        adapted=adapted, notes=notes, reads=list(_reads(config, model)), parts=list(_parts(model)),
        recipe=list(_recipe(config, ledger)) if ledger else [], trainable=_trainable(config) if ledger else [],
        stages=list(stages(folder, config)), data=list(_data(config)) if ledger else [], figures=list(figures(folder)),
        validation=[f"{key} {value:.4g}" for key, value in (ledger.get("best") or {}).items()],
        licences=[(label, line) for label, line, _ in licences],
    )  # fmt: skip
    (out / "README.md").write_text(text, encoding="utf-8")


def medium_of(model: OmniModel) -> str:
    """An argument of the processor for what a model reads."""
    return 'video="clip.mp4"' if "video" in _slots(model) else 'audio="clip.wav"'


def _slots(model: OmniModel) -> list[str]:
    senses = {reads for reads, _ in model.transforms.values()}
    return [slot for slot, any_of in (("video", {"frames", "faces"}), ("audio", {"waveform"})) if senses & any_of]


def licence(name: str) -> tuple[str, bool]:
    """What the licence of a base is called, and whether it is free for every use.

    >>> licence("Qwen/Qwen2.5-7B-Instruct"), licence("Qwen/Qwen2.5-3B-Instruct")[1], licence("somebody/else")
    (('Apache-2.0', True), False, ('see its repository', False))
    """
    found = next(((line, free) for pattern, line, free in LICENCES if re.match(pattern, name)), None)
    return found or (UNKNOWN, False)


def bases_of(folder: Path, config: DictConfig) -> Iterator[str]:
    """Whose weights a model began with: its parts', and those of the checkpoint that it or a parent was converted from.

    Names only: hub ids, ``foundation/siglip``, ``HumanOmni``; of a folder elsewhere nothing but its last part.
    """
    plain: Any = OmegaConf.to_container(config.model, resolve=True)
    nodes = [*(plain.get("encoders") or {}).values(), *(plain.get("projectors") or {}).values(), plain["llm"]]
    for node in nodes:
        if isinstance(node, Mapping) and isinstance(node.get("weights"), str):
            yield _named(node["weights"])
    for place in (folder, *(parent for parent, _ in _parents(folder, config) if parent is not None)):
        if said := _json(place / "source.json"):
            path, source = str(said.get("path") or ""), str(said["source"])
            if bases := (said.get("config") or {}).get("bases"):  # an export, whose own bases bind
                yield from map(str, bases)
                continue
            yield path if HUB.fullmatch(path) and not Path(path).exists() else SOURCES.get(source, _named(path))
            towers = (said.get("config") or {}).get("mm_vision_tower"), (said.get("config") or {}).get("mm_audio_tower")
            yield from (_named(str(tower)) for tower in towers if tower)


def _named(weights: str) -> str:
    path = Path(weights)
    if "foundation" in path.parts:
        return f"foundation/{path.name}"
    return path.name if path.is_absolute() or path.exists() or weights.startswith((".", "~")) else weights


def stages(folder: Path, config: DictConfig, depth: int = 0) -> Iterator[tuple[int, str]]:
    """The run and, below it, the runs that it began from, as far as they are still there."""
    source = _json(folder / "source.json")
    if source:
        yield depth, f"{SOURCES.get(source['source'], source['source'])}, converted"
        return
    digest = (folder / "digest").read_text().split() if (folder / "digest").is_file() else [""]
    variant = f" ({config.variant})" if config.get("variant") else ""
    yield depth, f"{config.get('name') or folder.name}{variant}, `{digest[0]}`"
    for parent, entry in _parents(folder, config):
        only = f", of it {entry['only']}" if entry.get("only") else ""
        if parent is None or depth > 16:
            yield depth + 1, f"{Path(str(entry.get('run') or entry.get('folder'))).name}{only}"
            continue
        (_, first), *rest = stages(parent, _config(parent), depth + 1)
        yield depth + 1, f"{first}{only}"
        yield from rest


def _parents(folder: Path, config: DictConfig) -> Iterator[tuple[Path | None, Mapping[str, Any]]]:
    """The folders of ``init_from``, ``None`` where one is gone."""
    variant = config.get("variant")
    size = folder.parents[1] if variant and folder.name == Path(str(variant)).name else folder.parent
    for entry in config.get("init_from") or []:
        place = Path(str(entry.folder)) if entry.get("folder") else size / str(entry.run)
        place = place / str(variant) if variant and (place / str(variant) / "config.yaml").is_file() else place
        yield (place if (place / "config.yaml").is_file() else None), entry


def figures(folder: Path) -> Iterator[tuple[str, ...]]:
    """Rows of the table of figures: every evaluation beside the run, its main scores with their intervals."""
    for file in sorted((folder / "evaluation").rglob("metrics.json")):
        said = _json(file)
        shown = [(name, score) for name, score in said.get("scores", {}).items() if "/" not in name][:SCORES]
        for name, score in shown:
            low, high = score.get("low"), score.get("high")
            span = f"{low:.1f} to {high:.1f}" if low is not None and high is not None else ""
            yield (
                str(said["benchmark"]), str(said["modality"]), name + (" (judged)" if score.get("judged") else ""),
                f"{score['value']:.1f}", span, str(score["n"]),
            )  # fmt: skip


def _reads(config: DictConfig, model: OmniModel) -> Iterator[tuple[str, str]]:
    data = config.data
    for name, (reads, make) in model.transforms.items():
        said = [f"{key} {value}" for key in ("size", "aspect", "num_bins", "samples", "max_length")
                if (value := getattr(make, key, None)) is not None]  # fmt: skip
        yield f"{name} ({reads})", ", ".join(said)
    yield "frames of a video", str(data.num_frames)
    tokens = model.layouts({"frames": int(data.num_frames), "waveform": 160_000})
    yield "tokens", ", ".join(f"{count} of {slot}" for slot, count in tokens.items() if count) + " (with 10 s of sound)"
    if any(reads == "faces" for reads, _ in model.transforms.values()):
        yield "faces", f"{data.face.source}, margin {data.face.margin}"
    yield "prompt", f"{model.llm.chat['template']}, markers {'on' if data.get('markers', True) else 'off'}"


def _parts(model: OmniModel) -> Iterator[tuple[str, str, int]]:
    for group in ("encoders", "early_fusions", "projectors", "fusions"):
        for name, part in getattr(model, group).items():
            yield f"{group}.{name}", type(part).__name__, sum(each.numel() for each in part.parameters())
    inner = model.llm.model
    yield "llm", type(inner).__name__, sum(each.numel() for each in inner.parameters())


def _recipe(config: DictConfig, ledger: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "command", f"`{_without_places(str(ledger.get('command', '')))}`"
    yield "samples", f"{ledger['trained']} of {ledger['planned']} planned"
    yield "steps", f"{ledger['steps']} of {config.stage.batch_size} samples"
    yield "time", f"{ledger['seconds'] / 3600:.2f} h" if ledger["seconds"] > 360 else f"{ledger['seconds']:.0f} s"
    optimizer = str(config.optimizer._target_).rpartition(".")[2]
    yield "optimizer", f"{optimizer}, precision {config.stage.precision}, seed {config.seed}"


def _without_places(command: str) -> str:
    """A command line without the folders of the machine that it ran on.

    >>> _without_places("python -m omnihuman.train runs=/home/me/runs data.root='~/clips' +experiment=a/b")
    "python -m omnihuman.train runs=runs data.root='clips' +experiment=a/b"
    """
    return re.sub(r"(?<=[='\"\s,\[:])[~/][^\s'\",\]}]*/([^\s/'\",\]}]+)/?", r"\1", command)


def _trainable(config: DictConfig) -> list[tuple[str, str]]:
    plain: Any = OmegaConf.to_container(config.trainable, resolve=True)
    return [(pattern, str(rate)) for pattern, rate in plain.items()]


def _data(config: DictConfig) -> Iterator[tuple[str, str]]:
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    records = data["records"] if isinstance(data["records"], list) else [data["records"]]
    said = [each if isinstance(each, Mapping) else {"path": each} for each in records]
    yield (
        "records",
        ", ".join(Path(str(each["path"])).name + (f" x {each['weight']}" if "weight" in each else "") for each in said),
    )
    if str((data.get("make") or {}).get("_target_", "")).endswith("sample_corpus"):
        yield "corpus", "omnihuman's built-in one, drawn and voiced by a program; nobody real is in it"
    tasks = data.get("tasks")
    if tasks:
        weighed = isinstance(tasks, Mapping)
        yield "tasks", ", ".join(f"{task} x {tasks[task]}" for task in tasks) if weighed else ", ".join(tasks)
    yield "views", ", ".join(data.get("views") or [])


def _sentence(model: OmniModel, slots: Sequence[str]) -> str:
    count = sum(each.numel() for each in model.parameters())
    senses = " and ".join({"video": "sees", "audio": "hears"}[slot] for slot in slots)
    return (
        f"A language model that {senses} people, of {count / 1e6:,.1f} M parameters, exported by omnihuman; "
        "its parts, its data path and its figures are below."
    )


def _config(folder: Path) -> DictConfig:
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    return config


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.is_file() else {}
