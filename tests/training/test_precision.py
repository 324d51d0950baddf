"""Precisions: parameters have the dtype, buffers and batches keep theirs, and every precision trains and resumes."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from omnihuman.build import compose_config
from omnihuman.data.collate import Packable, pack
from omnihuman.objective.base import Objective
from omnihuman.training.precision import AUTOCAST, DTYPES, ParameterPrecision, build_precision
from omnihuman.training.stage import run_stage
from tests.smoke.test_train import build_overrides, fail_at_step, read_losses, train

SCALE = Path(__file__).parents[2] / "docs/guide/scale.md"


def test_buffers_and_batches_keep_their_dtypes() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    plugin = ParameterPrecision("bf16-true")
    assert plugin.convert_module(layers) is layers
    assert {parameter.dtype for parameter in layers.parameters()} == {torch.bfloat16}
    assert layers[1].running_mean.dtype == torch.float32
    frames = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    batch = pack([Packable({"video": frames}, [1], [1])], {"video": frames}, step_targets=1)
    assert plugin.convert_input(batch) is batch


@pytest.mark.parametrize(
    ("precision", "named"),
    [("16-mixed", "GPU"), ("16-true", "float16"), ("32", "32-true"), ("transformer-engine", "bf16-true")],
)
def test_precision_that_cannot_be_used_is_refused(precision: str, named: str) -> None:
    with pytest.raises(ValueError, match=rf"recipe\.precision={precision}\b.*{named}"):
        build_precision(precision, "cpu")


def read_commands() -> list[list[str]]:
    """Return the overrides of the documented commands that name a precision."""
    text = SCALE.read_text().replace("\\\n", " ")
    commands = [shlex.split(command) for command in re.findall(r"^omnihuman train (.*)$", text, re.MULTILINE)]
    return [command for command in commands if "recipe.precision=bf16-true" in command]


SHORT = ("frames=2", "data.features=null", "trainer.max_steps=2", "trainer.limit_val_batches=0", "logger=csv")


MORE_PRECISIONS = ("bf16-true", "64-true")


@pytest.mark.parametrize(
    ("number", "precision"),
    [(0, "bf16-true"), *(pytest.param(1, name, marks=pytest.mark.slow) for name in ("bf16-mixed", *MORE_PRECISIONS))],
)
def test_documented_commands_train(number: int, precision: str, corpus: Path, tmp_path: Path) -> None:
    replaced = ("size=", "trainer.max_steps=", "recipe.precision=", "recipe.batch_size=", "validate_first=")
    overrides = [override for override in read_commands()[number] if not override.startswith(replaced)]
    overrides += build_overrides(corpus, tmp_path, *SHORT, f"recipe.precision={precision}", "recipe.batch_size=2")
    run = run_stage(compose_config(overrides), overrides)
    assert len(read_losses(run)) == 2
    assert {tensor.dtype for tensor in load_file(run.weights).values()} == {DTYPES.get(precision, torch.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", *MORE_PRECISIONS])
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
