"""The weights of the fusions in training, and the losses of the gate."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnihuman.data.collate import Packable, pack
from omnihuman.fusion.base import Fusion
from omnihuman.fusion.gate import InstructionGate
from omnihuman.training.fusion_weights import FusionWeights
from omnihuman.training.runs import Run
from omnihuman.types import Batch
from tests.smoke.test_train import read_column, train

STREAMS = ["interaction", "body", "face"]
NATS = math.log(3)


class Model(nn.Module):
    """The fusions of a model, and the weights of the next batch."""

    weights: Any
    is_present: Any

    def __init__(self, **OPTIONS: Any) -> None:
        super().__init__()
        dims = dict.fromkeys([*STREAMS, "text"], 4)
        self.gate = InstructionGate(dims, STREAMS, "video", "text", hidden=4, **OPTIONS)
        self.all_fusions: dict[str, Fusion] = {"gate": self.gate}

    def fusion(self, name: str) -> Fusion:
        return self.all_fusions[name]

    def last_fusion_weights(self) -> dict[str, Tensor]:
        assert self.gate.weights is not None
        return {"gate": self.gate.weights}

    def forward(self, batch: Batch) -> None:
        self.gate.weights, self.gate.is_present = torch.tensor(self.weights), torch.tensor(self.is_present)


def build_batch(*tasks: str | None) -> Batch:
    return pack([Packable({}, [1], [1], meta={"task": task}) for task in tasks], {}, step_targets=1)


def log_step(callback: FusionWeights, model: Any, batches: list[Any], ranks: int = 1) -> dict[str, float]:
    """Return what one step of several micro-batches, each a batch with its weights, logs."""
    logged: dict[str, float] = {}
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.update(metrics))
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor * ranks)
    trainer = SimpleNamespace(strategy=strategy, loggers=[logger], global_step=1)
    module = SimpleNamespace(model=model)
    callback.on_train_start(trainer, module)
    for batch, weights, is_present in batches:
        model.weights, model.is_present = weights, is_present
        model(batch)
        model.eval()(batch)  # as in a validation
        model.train()
    callback.on_train_batch_end(trainer, module, None, batches, 0)
    callback.on_train_end(trainer, module)
    return logged


def test_means_are_those_of_the_samples_of_all_micro_batches() -> None:
    model: Any = Model()
    callback = FusionWeights([model.gate], ["face", "body", None])
    logged = log_step(
        callback,
        model,
        [
            (build_batch("face", "face", "body"), [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [True, True, True]),
            (build_batch("face"), [[0, 1, 0]], [True]),
            (build_batch(), [[1, 0, 0]], [False]),  # a rank without work in this micro-batch
        ],
        ranks=2,
    )
    assert [logged[f"train/gate/face/{name}"] for name in STREAMS] == pytest.approx([1 / 3, 2 / 3, 0])
    assert logged["train/gate/body/face"] == 1 and "train/gate/no_task/face" not in logged
    assert logged["train/gate/entropy"] == logged["train/gate/entropy_share"] == 0
    assert model.gate.usage == pytest.approx([0.25, 0.5, 0.25])


def test_a_sample_without_tokens_does_not_count() -> None:
    model: Any = Model()
    third, batch = [1 / 3] * 3, build_batch("face", None)
    logged = log_step(FusionWeights([model.gate], ["face", None]), model, [(batch, [[1, 0, 0], third], [False, True])])
    assert "train/gate/face/face" not in logged and logged["train/gate/no_task/face"] == pytest.approx(1 / 3)
    assert logged["train/gate/entropy"] == pytest.approx(NATS) and logged["train/gate/entropy_share"] == pytest.approx(
        1
    )


@pytest.mark.parametrize("weights", [[2.0, 0.5, 0.5], [1.5, -0.5, 0.0]], ids=["sum", "sign"])
def test_weights_that_are_no_shares_have_no_entropy(weights: list[float]) -> None:
    model: Any = Model()
    logged = log_step(FusionWeights([model.gate], ["face"]), model, [(build_batch("face"), [weights], [True])])
    assert set(logged) == {f"train/gate/face/{name}" for name in STREAMS}


def test_usage_comes_back_from_a_checkpoint() -> None:
    model: Any = Model()
    first, second = FusionWeights([model.gate], ["face"]), FusionWeights([model.gate], ["face"])
    log_step(first, model, [(build_batch("face"), [[0.5, 0.25, 0.25]], [True])])
    model.gate.usage = None
    second.load_state_dict(first.state_dict())
    second.on_train_start(None, SimpleNamespace(model=model))
    assert model.gate.usage == [0.5, 0.25, 0.25]


def test_a_warm_start_of_an_unknown_task_raises() -> None:
    model: Any = Model(warm_start={"fase": "face"})
    with pytest.raises(ValueError, match=r"\['fase'\].*\['body', 'face'\]"):
        FusionWeights([model.gate], ["face", "body", "face"])


GATE = "model.fusions.gate"
OPTIONS = (f"{GATE}.balance=0.5", f"{GATE}.warm_start={{face: face, body: body}}", f"{GATE}.warm_start_steps=2")
STAGE = ("init_from=[]", "data.tasks={face: 1, body: 1}", "trainer.limit_val_batches=0", "validation.views=[]")


def train_gate(corpus: Path, runs: Path, *more: str) -> Run:
    overrides = (*STAGE, "logger=csv", "trainer.max_steps=3", "validation.gate_tasks=[]", *more)
    return train(corpus, runs, *overrides, experiment="humanomni_stage1")


@pytest.mark.slow
def test_losses_of_the_gate_do_not_depend_on_the_packing(corpus: Path, tmp_path: Path) -> None:
    one = train_gate(corpus, tmp_path / "one", *OPTIONS)
    several = train_gate(corpus, tmp_path / "several", *OPTIONS, "recipe.max_tokens=500")
    plain = train_gate(corpus, tmp_path / "plain")
    for name in ("loss", "gate_balance_loss", "gate_warm_start_loss", "gate/face/face", "gate/entropy"):
        values = read_column(one, f"train/{name}")
        assert values and read_column(several, f"train/{name}") == pytest.approx(values, rel=1e-4), name
    assert len(read_column(one, "train/gate_warm_start_loss")) == 3
    assert read_column(one, "train/gate_balance_loss")[0] == pytest.approx(1), "no mean of a step before"
    assert read_column(one, "train/loss")[0] == read_column(plain, "train/loss")[0], "the loss of the answers alone"
    assert read_column(one, "train/loss")[2] != read_column(plain, "train/loss")[2]
    assert not read_column(plain, "train/gate_balance_loss") and len(read_column(plain, "train/gate/entropy")) == 3
