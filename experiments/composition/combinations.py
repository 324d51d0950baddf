"""Every encoder x projector x fusion as a model: which of them work, and why the others cannot.

``python experiments/composition/combinations.py`` writes COMBINATIONS.md beside itself; a test trains a step of each.
"""

from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from omnihuman.build import build, compose_part, config_dir
from omnihuman.encoder.base import Encoder
from omnihuman.llm.causal import CausalLM
from omnihuman.model.omni import OmniModel

AMOUNTS = {"frames": 3, "waveform": 16000}
"""What the sample of a combination has."""
FILE = Path(__file__).with_name("COMBINATIONS.md")
WIRING: Mapping[str, Mapping[str, Any]] = {
    "slow_fast": {"inputs": ["video"]},
    "frame_embedding": {"inputs": ["video"]},
    "newline": {"inputs": ["video"]},
    "gate": {"inputs": ["video", "face"], "condition": "instruction"},
    "cascade": {"inputs": ["face"], "output": "face", "condition": "video"},
}
"""What a fusion reads, where it is not the video and the face; the rest of its yaml stays."""


def presets(group: str) -> list[str]:
    """The yamls of a group that build a part at nano size."""
    folder = Path(config_dir()) / group
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    whole = [name for name in names if not (folder / name).is_dir()]
    return sorted(name for name in whole if "/" not in name or name.endswith("/nano"))


@cache
def part(group: str, name: str) -> DictConfig:
    """The config of a part; composed once."""
    return compose_part(group, name)


@cache
def encoder(name: str, reads: str | None = None) -> Encoder:
    """A nano encoder, frozen; made once."""
    made: Encoder = build(part("encoder", name), **({"reads": reads} if reads else {}))
    return made.requires_grad_(False).eval()


@cache
def llm() -> CausalLM:
    """The nano language model, frozen; made once."""
    made: CausalLM = build(part("llm", "causal/nano"))
    return made.requires_grad_(False)


def combine(video: str, projector: str, fusion: str) -> OmniModel:
    """A model of one encoder, one kind of projector and one fusion.

    The encoder reads the video, FaceXFormer the faces where the fusion merges two streams. A cascade asks the encoder
    for the levels of the face, and SigLIP for the general features.

    Raises:
        ValueError: they do not fit, with the reason.
    """
    torch.manual_seed(0)
    module = fusion.partition("/")[0]
    kind = next((kind for kind in WIRING if f"{module}_".startswith(f"{kind}_")), "")
    wiring = WIRING.get(kind, {"inputs": ["video", "face"]})
    early = kind == "cascade"
    encoders = {"video": encoder("siglip/nano" if early else video)}
    if "face" in wiring["inputs"]:
        closely = video if early else "facexformer/nano"
        encoders["face"] = encoder(closely, "faces" if encoder(closely).reads == "frames" else None)
    if "condition" in wiring and kind != "cascade":
        encoders["instruction"] = encoder("bert/nano")
    merge = build(part("fusion", fusion), **wiring)
    joins = {"merge": merge}
    if early:  # the face that was read level by level still has to meet the video
        joins = {"join": build(part("fusion", "clip_concat"), inputs=["video", "face"])}
    make = build(part("projector", projector))
    return OmniModel(
        encoders,
        {name: make for name in encoders if name != "instruction"},
        llm(),
        early_fusions={"merge": merge} if early else {},
        fusions=joins,
    )


def attempt(video: str, projector: str, fusion: str) -> OmniModel | str:
    """The model of a combination, or why it cannot work."""
    try:
        model = combine(video, projector, fusion)
        model.layouts(AMOUNTS)
    except ValueError as error:
        return str(error)
    return model


def main() -> None:
    """Write the combinations that are refused, and why."""
    axes = {group: presets(group) for group in ("encoder", "projector", "fusion")}
    refused: dict[str, list[str]] = {}
    total = 0
    for names in product(*axes.values()):
        total += 1
        if isinstance(reason := attempt(*names), str):
            refused.setdefault(reason, []).append(" x ".join(name.removesuffix("/nano") for name in names))
    count = sum(map(len, refused.values()))
    lines = [
        "# What does not combine",
        "",
        f"Made by `python {Path(__file__).relative_to(Path(__file__).parents[2])}`: of {total} combinations of "
        f"{', '.join(f'{len(names)} {group}s' for group, names in axes.items())} {total - count} work, {count} are "
        "refused when the model is built, with these words.",
    ]
    for reason, names in sorted(refused.items(), key=lambda entry: -len(entry[1])):
        lines += ["", f"**{reason}**", "", f"{len(names)}: {'; '.join(names)}"]
    FILE.write_text("\n".join(lines) + "\n")
    print(f"{FILE}: {total - count} of {total} work")


if __name__ == "__main__":
    main()
