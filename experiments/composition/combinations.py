"""Every encoder x projector x fusion as a model, and every single swap of the variants: what works, and what does not.

``make combinations`` runs a forward pass of each and writes COMBINATIONS.md beside this file.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from hydra.utils import get_class
from omegaconf import OmegaConf

from omnihuman.build import build, compose_config, compose_part, config_dir, prune
from omnihuman.data.collate import Packable, pack
from omnihuman.data.face import stack_faces
from omnihuman.encoder.base import Encoder
from omnihuman.fusion.base import Fusion
from omnihuman.llm.causal import CausalLM
from omnihuman.modality import BY_FIELD, INSTRUCTION, SLOTS
from omnihuman.model.omni import OmniModel
from omnihuman.types import IGNORE_INDEX, Batch

FILE = Path(__file__).with_name("COMBINATIONS.md")
ROOT = Path(__file__).parents[2]
VARIANTS = ("humanomni", "omni_emotion", "favchat", "favchat_text")
GROUPS = {"encoders": "encoder", "early_fusions": "fusion", "projectors": "projector", "fusions": "fusion"}
"""Group of a model's slots -> group of the presets that fit there."""
WIRING = ("inputs", "output", "condition")
"""Keys of a fusion's node that belong to the model, not to its preset."""
AMOUNTS = {"frames": 3, "waveform": 16000}
"""Frames and audio samples of the sample that a model is run with."""
RANDOM = torch.Generator().manual_seed(0)
FRAMES = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8, generator=RANDOM)
FIELDS: dict[str, Any] = {
    "frames": FRAMES,
    "faces": (FRAMES[0, :, :20, :20], None, FRAMES[2, :, 5:30, 5:30]),
    "waveform": torch.rand(AMOUNTS["waveform"], generator=RANDOM) - 0.5,
    "instruction": "What is the main emotion?",
}
Outcome = OmniModel | str
"""A model, or the message of the ``ValueError`` that refuses it."""


@dataclass(frozen=True)
class Swap:
    """One slot of a variant with another preset: ``favchat: projectors.facial=mlp``."""

    variant: str
    group: str
    name: str
    preset: str

    def __str__(self) -> str:
        slot = ".".join(filter(None, (self.group, self.name)))
        return f"{self.variant}: {slot}={self.preset}"


@cache
def presets(group: str) -> tuple[str, ...]:
    """Return the presets of a group by the names that a user types."""
    return tuple(sorted(path.stem for path in (Path(config_dir()) / group).glob("*.yaml")))


@cache
def part(group: str, preset: str) -> dict[str, Any]:
    """Return the node of a preset at nano size."""
    node = OmegaConf.to_container(compose_part(group, preset), resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


@cache
def built(node: str) -> Any:
    """Build the encoder or language model of a node in JSON, frozen; once for all models."""
    return build(json.loads(node)).requires_grad_(False).eval()


def build_whole(node: Mapping[str, Any]) -> Any:
    """Build a part that all models share."""
    return built(json.dumps(node, sort_keys=True))


# ---- encoder x projector x fusion


def preset_of_each_class(group: str) -> list[str]:
    """Return one preset of each class of a group; presets that differ in options are swapped, not multiplied."""
    first: dict[str, str] = {}
    for preset in presets(group):
        first.setdefault(find_target(group, preset), preset)
    return list(first.values())


def find_target(group: str, preset: str) -> str:
    """Return the class of a preset, its own or that of the preset of its group which it begins with."""
    node = OmegaConf.load(Path(config_dir(), group, f"{preset}.yaml"))
    if "_target_" in node:
        return str(node["_target_"])
    return find_target(group, next(entry for entry in node["defaults"] if entry in presets(group)))


def derive_wiring(fusion: type[Fusion]) -> dict[str, Any]:
    """Return the wiring of a fusion from what it declares: a face and its video, or the video alone."""
    if fusion.reads_levels:
        return {"inputs": ["face"], "output": "face", "condition": "video"}
    inputs = ["video", "face"]
    if fusion.max_inputs == 1:
        inputs = ["video"]
    condition = "instruction" if fusion.condition_use == "required" else None
    return {"inputs": inputs, "output": "video", "condition": condition}


def combine(video: str, projector: str, fusion: str) -> OmniModel:
    """Build a model of one encoder, one kind of projector and one fusion.

    The encoder reads the video, and FaceXFormer the faces where the fusion has two inputs. Where the fusion reads
    levels, the encoder reads the faces and SigLIP the video, and both are concatenated.

    Raises:
        ValueError: the parts do not fit.
    """
    torch.manual_seed(0)
    node = part("fusion", fusion)
    kind = get_class(node["_target_"])
    wiring = derive_wiring(kind)
    names = {"video": video}
    if kind.reads_levels:
        names = {"video": "siglip", "face": video}
    elif "face" in wiring["inputs"]:
        names["face"] = "facexformer"
    if wiring["condition"] == "instruction":
        names["instruction"] = "bert"
    merge = build(node, **wiring)
    fusions = {"merge": merge}
    if kind.reads_levels:
        fusions = {"join": build(part("fusion", "clip_concat"), inputs=["video", "face"], output="video")}
    encoders: dict[str, Encoder] = {name: build_whole(part("encoder", preset)) for name, preset in names.items()}
    reads = {}
    if "faces" in encoders.get("face", encoders["video"]).sample_fields and "face" in encoders:
        reads = {"face": "faces"}
    factory = build(part("projector", projector))
    llm: CausalLM = build_whole(part("llm", "causal"))
    return OmniModel(
        encoders,
        {name: factory for name in encoders if name != "instruction"},
        llm,
        reads=reads,
        early_fusions={"merge": merge} if kind.reads_levels else {},
        fusions=fusions,
    )


def attempt(video: str, projector: str, fusion: str) -> Outcome:
    """Return the model of a combination, or why it is refused."""
    return _attempt(lambda: combine(video, projector, fusion))


# ---- single swaps


@cache
def variant_config(variant: str) -> dict[str, Any]:
    """Return the model of a variant at nano size; composed once."""
    model = OmegaConf.to_container(compose_config([f"model={variant}"]).model, resolve=True)
    assert isinstance(model, dict)
    return prune({str(key): value for key, value in model.items()})


def list_swaps(variants: Iterable[str] = VARIANTS) -> list[Swap]:
    """List every slot of the variants with every preset of its group."""
    swaps = []
    for variant in variants:
        config = variant_config(variant)
        slots = [("llm", "", "llm")]
        for key, group in GROUPS.items():
            slots += [(key, name, group) for name in config.get(key) or {}]
        for key, name, group in slots:
            swaps += [Swap(variant, key, name, preset) for preset in presets(group)]
    return swaps


def build_swap(swap: Swap) -> OmniModel:
    """Build a variant with one slot's preset replaced; the wiring stays.

    Raises:
        ValueError: the new part does not fit.
    """
    config = variant_config(swap.variant)
    nodes = {key: dict(config.get(key) or {}) for key in GROUPS}
    llm = config["llm"]
    if swap.group == "llm":
        llm = part("llm", swap.preset)
    else:
        slot = nodes[swap.group][swap.name]
        wiring = {key: slot[key] for key in WIRING if key in slot}
        nodes[swap.group][swap.name] = part(GROUPS[swap.group], swap.preset) | wiring
    torch.manual_seed(0)
    return OmniModel(
        {name: build_whole(node) for name, node in nodes["encoders"].items()},
        {name: build(node) for name, node in nodes["projectors"].items()},
        build_whole(llm),
        reads=config.get("reads"),
        projector_inputs=config.get("projector_inputs"),
        conditions=config.get("conditions"),
        early_fusions={name: build(node) for name, node in nodes["early_fusions"].items()},
        fusions={name: build(node) for name, node in nodes["fusions"].items()},
    )


def attempt_swap(swap: Swap) -> Outcome:
    """Return the model of a swap, or why it is refused."""
    return _attempt(lambda: build_swap(swap))


def _attempt(build_model: Callable[[], OmniModel]) -> Outcome:
    try:
        model = build_model()
        model.count_tokens(AMOUNTS)
    except ValueError as error:
        return str(error)
    return model


# ---- a forward pass


def make_batch(model: OmniModel) -> Batch:
    """Make a batch of two samples: one with every modality and a frame without a face, one of text alone."""
    blanks, signals, masks = {}, {}, {}
    for name, (field, transform) in model.transforms.items():
        empty = "" if field == INSTRUCTION else BY_FIELD[field].blank()
        blanks[name] = torch.zeros_like(transform(empty)[:1])
        if field == "faces":
            steps = [None if face is None else transform(face[None]) for face in FIELDS["faces"]]
            signals[name], masks[name] = stack_faces(steps, blanks[name])
        else:
            signals[name] = transform(FIELDS[field] if field in FIELDS else BY_FIELD[field].blank(len(FRAMES)))
    slots = []
    for slot, count in model.count_tokens(AMOUNTS).items():
        slots += [SLOTS[slot]] * count
    labels = [IGNORE_INDEX] * (3 + len(slots)) + [7, 8, 9]
    first = Packable(signals, [5, *slots, 6, 7, 7, 8, 9], labels, {}, masks)
    text_only = {name: signals[name] for name, (field, _) in model.transforms.items() if field == INSTRUCTION}
    second = Packable(text_only, [5, 6, 7, 7, 8, 9], [IGNORE_INDEX] * 3 + [7, 8, 9])
    return pack([first, second], blanks, step_targets=6)


@torch.no_grad()
def run_forward(model: OmniModel) -> None:
    """Run a forward pass.

    Raises:
        ValueError: the loss is not finite.
    """
    loss = model.eval()(make_batch(model)).loss
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss}.")


# ---- the report


@dataclass
class Table:
    """Counts of one kind of attempts, and the reasons of those that are refused or fail."""

    works: int
    refused: dict[str, list[str]]
    failed: dict[str, list[str]]

    @property
    def row(self) -> str:
        """Cells of a Markdown table."""
        return f"{self.works} | {sum(map(len, self.refused.values()))} | {sum(map(len, self.failed.values()))}"


def tabulate(attempts: Iterable[tuple[str, Callable[[], Outcome]]]) -> Table:
    """Attempt each model and run a forward pass of it."""
    table = Table(0, defaultdict(list), defaultdict(list))
    for name, make in attempts:
        try:
            outcome = make()
            if isinstance(outcome, str):
                table.refused[outcome].append(name)
                continue
            run_forward(outcome)
        except Exception as error:
            table.failed[f"{type(error).__name__}: {error}"].append(name)
        else:
            table.works += 1
    return table


def write_report(tables: Mapping[str, Table]) -> None:
    """Write the counts and the reasons."""
    lines = [
        "# What combines, and what does not",
        "",
        "Written by `make combinations`. Each model is built at nano size and run forward once. Refused: a message "
        "says why when the model is built. Errors: anything else.",
        "",
        "| | works | refused | errors |",
        "|---|---|---|---|",
        *(f"| {name} | {table.row} |" for name, table in tables.items()),
    ]
    for name, table in tables.items():
        lines += ["", f"## {name}"]
        reasons = table.failed | table.refused
        for reason, names in sorted(reasons.items(), key=lambda entry: -len(entry[1])):
            lines += ["", f"**{reason}**", "", f"{len(names)}: {'; '.join(names)}"]
    FILE.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Attempt everything, write the report, and return 1 if a model fails with anything but a refusal."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    products = product(*map(preset_of_each_class, ("encoder", "projector", "fusion")))
    tables = {"encoder x projector x fusion": tabulate((" x ".join(n), lambda n=n: attempt(*n)) for n in products)}
    for variant in VARIANTS:
        swaps = list_swaps([variant])
        tables[f"single swaps of {variant}"] = tabulate((str(s), lambda s=s: attempt_swap(s)) for s in swaps)
    write_report(tables)
    for name, table in tables.items():
        print(f"{name}: works | refused | errors = {table.row}")
    return int(any(table.failed for table in tables.values()))


if __name__ == "__main__":
    sys.exit(main())
