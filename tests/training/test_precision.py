"""Precisions: what trains is in float32, buffers and batches keep their dtypes, and every precision trains, resumes."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from omnihuman.build import build, compose_config
from omnihuman.data.collate import Packable, pack
from omnihuman.model.dtypes import AUTOCAST, DTYPES
from omnihuman.objective.base import Objective
from omnihuman.training.precision import ParameterPrecision, build_precision
from omnihuman.training.stage import run_stage
from tests.smoke.test_train import build_overrides, fail_at_step, read_losses, train

SCALE = Path(__file__).parents[2] / "docs/guide/scale.md"


def test_buffers_and_batches_keep_their_dtypes() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    plugin = ParameterPrecision("64-true")
    assert plugin.convert_module(layers) is layers
    assert {parameter.dtype for parameter in layers.parameters()} == {torch.float64}
    assert layers[1].running_mean.dtype == torch.float32
    frames = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    batch = pack([Packable({"video": frames}, [1], [1])], {"video": frames}, step_targets=1)
    assert plugin.convert_input(batch) is batch


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_frozen_matrices_alone_are_narrow(precision: str) -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2)).bfloat16()
    layers[:2].requires_grad_(False)
    build_precision(precision, "cpu").convert_module(layers)
    narrow = {name for name, parameter in layers.named_parameters() if parameter.dtype == torch.bfloat16}
    assert narrow == ({"0.weight"} if precision == "bf16" else set())


@pytest.mark.parametrize(
    ("precision", "named"),
    [
        ("16-mixed", "GPU"),
        ("16-true", "float16"),
        ("32", "32-true"),
        ("transformer-engine", "bf16-mixed"),
        ("bf16-true", "updates .*LoRA.* bf16"),
    ],
)
def test_precision_that_cannot_be_used_is_refused(precision: str, named: str) -> None:
    with pytest.raises(ValueError, match=rf"recipe\.precision={precision}\b.*{named}"):
        build_precision(precision, "cpu")


def train_layers(dtype: torch.dtype | None) -> tuple[float, list[float]]:
    """Train two layers, the first one frozen, for 100 steps of our optimizer at the papers' learning rate.

    Args:
        dtype: of the parameters; ``None``: as ``bf16`` stores them.

    Returns:
        the share of weights that have moved, and the losses.
    """
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(16, 32, bias=False), nn.ReLU(), nn.Linear(32, 16, bias=False)).bfloat16()
    nn.init.normal_(layers[2].weight, std=0.02)
    layers[0].requires_grad_(False)
    plugin = build_precision("bf16", "cpu")
    layers = plugin.convert_module(layers) if dtype is None else layers.to(dtype)
    before = layers[2].weight.detach().clone()
    inputs, targets = torch.randn(64, 16), torch.randn(64, 16)
    optimizer = build(compose_config(["+experiment=humanomni_stage1"]).optimizer)(layers[2].parameters(), lr=2e-5)
    losses = []
    for _ in range(100):
        with plugin.forward_context():
            loss = (layers(inputs).float() - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return (layers[2].weight != before).float().mean().item(), losses


def test_weights_that_train_move() -> None:
    """At this learning rate most weights in bfloat16 never do; frozen weights in bfloat16 change no loss."""
    narrow, masters, wide = (train_layers(dtype) for dtype in (torch.bfloat16, None, torch.float32))
    assert narrow[0] < 0.4 and masters[0] == 1.0
    assert masters[1] == wide[1] and masters[1][-1] < narrow[1][-1]


def read_commands() -> list[list[str]]:
    """Return the overrides of the documented commands that train without any download."""
    text = SCALE.read_text().replace("\\\n", " ")
    commands = [shlex.split(command) for command in re.findall(r"^omnihuman train (.*)$", text, re.MULTILINE)]
    return [command for command in commands if "random_weights=true" in command]


SHORT = ("frames=2", "data.features=null", "trainer.max_steps=2", "trainer.limit_val_batches=0", "logger=csv")


@pytest.mark.parametrize(
    ("number", "precision"),
    [(0, "bf16"), *(pytest.param(1, name, marks=pytest.mark.slow) for name in ("bf16", "bf16-mixed", "64-true"))],
)
def test_documented_commands_train(number: int, precision: str, corpus: Path, tmp_path: Path) -> None:
    replaced = ("size=", "trainer", "recipe.batch_size=", "validate_first=")
    overrides = [override for override in read_commands()[number] if not override.startswith(replaced)]
    overrides += build_overrides(corpus, tmp_path, *SHORT, f"recipe.precision={precision}", "recipe.batch_size=2")
    run = run_stage(compose_config(overrides), overrides)
    assert len(read_losses(run)) == 2
    assert {tensor.dtype for tensor in load_file(run.weights).values()} == {DTYPES.get(precision, torch.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed", "64-true"])
def test_every_precision_resumes(precision: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = (*SHORT, f"recipe.precision={precision}", "recipe.checkpoint_every=1", "recipe.batch_size=4")
    uninterrupted = train(corpus, tmp_path / "uninterrupted", *more)
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", fail_at_step(1))
        with pytest.raises(RuntimeError, match="power failure"):
            train(corpus, tmp_path / "resumed", *more)
    resumed = train(corpus, tmp_path / "resumed", *more)
    assert read_losses(resumed) == read_losses(uninterrupted)
    expected = load_file(uninterrupted.weights)
    for name, tensor in load_file(resumed.weights).items():
        assert torch.equal(tensor, expected[name]), name


def test_precisions_of_the_presets_are_known() -> None:
    for experiment in ("humanomni_stage1", "favchat_stage1"):
        for size in ("nano", "7b"):
            precision = compose_config([f"+experiment={experiment}", f"size={size}"]).trainer.precision
            assert precision in (*DTYPES, *AUTOCAST)
