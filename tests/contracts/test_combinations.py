"""Any encoder with any projector and any fusion: one training step of each, or a refusal that says why."""

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.data.collate import Packable, pack
from omnihuman.data.face import signal_of
from omnihuman.model.omni import OmniModel
from omnihuman.training.trainable import set_trainable
from omnihuman.types import IGNORE_INDEX, SLOTS, Batch

FILE = Path(__file__).parents[2] / "experiments" / "composition" / "combinations.py"
found = importlib.util.spec_from_file_location("combinations", FILE)
assert found is not None and found.loader is not None
combinations = importlib.util.module_from_spec(found)
found.loader.exec_module(combinations)

FUSIONS = combinations.presets("fusion")
PAIRS = list(itertools.product(combinations.presets("encoder"), combinations.presets("projector")))
DRAWN = torch.Generator().manual_seed(0)
FRAMES = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8, generator=DRAWN)
FIELDS: dict[str, Any] = {
    "frames": FRAMES,
    "faces": (FRAMES[0, :, :20, :20], None, FRAMES[2, :, 5:30, 5:30]),
    "waveform": torch.rand(16000, generator=DRAWN) - 0.5,
    "instruction": "What is the main emotion?",
}


def batch_of(model: OmniModel) -> Batch:
    """A sample that is seen and heard, one frame of it without a face, and one of words alone."""
    empty = {"frames": FRAMES[:1], "faces": FRAMES[:1], "waveform": FIELDS["waveform"], "instruction": ""}
    blanks = {name: torch.zeros_like(make(empty[reads])[:1]) for name, (reads, make) in model.transforms.items()}
    signals, real = {}, {}
    for name, (reads, make) in model.transforms.items():
        if reads == "faces":
            signals[name], real[name] = signal_of(FIELDS["faces"], make, blanks[name])
        else:
            signals[name] = make(FIELDS[reads])
    counts = model.layouts(combinations.AMOUNTS)
    slots = [SLOTS[slot] for slot in counts for _ in range(counts[slot])]
    answer = [IGNORE_INDEX] * 3 + [7, 8, 9]
    seen = Packable(signals, [5, *slots, 6, 7, 7, 8, 9], [IGNORE_INDEX] * (1 + len(slots)) + answer[1:], {}, real)
    words = {name: signals[name] for name, (reads, _) in model.transforms.items() if reads == "instruction"}
    return pack([seen, Packable(words, [5, 6, 7, 7, 8, 9], answer)], blanks, step_targets=6)


def test_there_are_enough() -> None:
    assert len(PAIRS) * len(FUSIONS) > 500


@pytest.mark.parametrize(("encoder", "projector"), PAIRS, ids=lambda name: name.removesuffix("/nano"))
def test_every_combination_takes_a_step_or_says_why_not(encoder: str, projector: str) -> None:
    for fusion in FUSIONS:
        model = combinations.attempt(encoder, projector, fusion)
        if isinstance(model, str):
            assert len(model) > 40 and ":" in model, f"{fusion}: {model} does not say what to do"
            continue
        groups = set_trainable(model, {"projectors.*": 1e-3} | ({"*fusions.*": 1e-3} if fusion_learns(model) else {}))
        before = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        output = model.train()(batch_of(model))
        (output.loss / 6).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert sum(len(group.names) for group in groups) == len(gradients)
        assert all(g is not None and g.isfinite().all() for g in gradients.values()), fusion
        for part in ("projectors.video", "projectors.face", "fusions.", "early_fusions."):
            own = [g for name, g in gradients.items() if name.startswith(part) and g is not None]
            assert not own or any(g.any() for g in own), f"{fusion}: nothing reaches {part}"
        optimizer.step()
        assert any(not torch.equal(before[n], p) for n, p in model.named_parameters() if n in before), fusion
        video = output.streams["video"]
        assert video.tokens[video.mask].isfinite().all()
        assert not video.mask[1].any(), f"{fusion}: words alone are seen"


def fusion_learns(model: OmniModel) -> bool:
    return any("fusions." in name for name, _ in model.named_parameters())
