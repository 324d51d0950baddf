"""Any class of encoder with any of projector and fusion: a training step, or an error with a cure."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import set_trainable

FILE = Path(__file__).parents[2] / "experiments" / "composition" / "combinations.py"
spec = importlib.util.spec_from_file_location("combinations", FILE)
assert spec is not None and spec.loader is not None
combinations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(combinations)

FUSIONS = combinations.preset_of_each_class("fusion")
PAIRS = list(itertools.product(*map(combinations.preset_of_each_class, ("encoder", "projector"))))
CROSS = []
"""Every encoder with one projector, and every projector with one encoder; the other pairs are slow."""
for pair in PAIRS:
    is_in_cross = pair[0] == "siglip" or pair[1] == "mlp"
    CROSS.append(pytest.param(*pair, marks=() if is_in_cross else pytest.mark.slow))


def test_number_of_combinations() -> None:
    assert len(PAIRS) * len(FUSIONS) >= 300


@pytest.mark.parametrize(("encoder", "projector"), CROSS)
def test_every_combination_trains_or_raises_with_a_cure(encoder: str, projector: str) -> None:
    for fusion in FUSIONS:
        model = combinations.attempt(encoder, projector, fusion)
        if isinstance(model, str):
            assert len(model) > 40 and ":" in model, f"{fusion}: {model} names no cure"
        else:
            check_training_step(model, fusion)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_works_in_some_combination(fusion: str) -> None:
    outcomes = (combinations.attempt(*pair, fusion) for pair in PAIRS)
    assert any(isinstance(outcome, OmniModel) for outcome in outcomes), f"{fusion} is refused everywhere"


def check_training_step(model: OmniModel, fusion: str) -> None:
    table = {"projectors.*": 1e-3}
    if any("fusions." in name for name, _ in model.named_parameters()):
        table["*fusions.*"] = 1e-3
    groups = set_trainable(model, table)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    output = model.train()(combinations.make_batch(model))
    (output.loss / 6).backward()
    assert sum(len(group.names) for group in groups) == len(trainable)
    gradients: dict[str, Tensor] = {}
    for name, parameter in trainable.items():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{fusion}: {name}"
        gradients[name] = parameter.grad
    for part in ("projectors.video", "projectors.face", "fusions.", "early_fusions."):
        part_gradients = [gradient for name, gradient in gradients.items() if name.startswith(part)]
        has_gradient = any(gradient.any() for gradient in part_gradients)
        assert has_gradient or not part_gradients, f"{fusion}: no gradient reaches {part}"
    optimizer.step()
    assert any(not torch.equal(before[name], parameter) for name, parameter in trainable.items()), fusion
    video = output.streams["video"]
    assert video.tokens[video.mask].isfinite().all()
    assert not video.mask[1].any(), f"{fusion}: a sample of text alone has video tokens"
