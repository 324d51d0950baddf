"""Seconds by their use, FLOPs, MFU and goodput of a training, restarts included."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import omnihuman.training.ledger as ledger_module
from omnihuman.cost.flops import PartFlops
from omnihuman.training.callbacks import Throughput
from omnihuman.training.ledger import Ledger
from omnihuman.types import IGNORE_INDEX, Batch, Signal


class Time:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(ledger_module, "time", time)
    return time


class Trainer:
    """The part of Lightning's trainer that the ledger reads."""

    def __init__(self, time: Time) -> None:
        self.world_size, self.is_global_zero = 2, True
        self.strategy = SimpleNamespace(
            root_device=torch.device("cpu"), reduce=lambda tensor, reduce_op: tensor * self.world_size
        )
        self.time = time

    def save_checkpoint(self, file: str) -> None:
        self.time.seconds += 4


class Module(SimpleNamespace):
    """The part of an objective that the ledger reads."""

    def log(self, name: str, value: float, **_: Any) -> None:
        self.logged[name] = value


def build_batch() -> Batch:
    ids = torch.zeros(1, 10, dtype=torch.long)
    labels = torch.full_like(ids, IGNORE_INDEX)
    signals = {"video": Signal(torch.zeros(2, 3, 1), torch.tensor([[True, True, True], [False] * 3]))}
    return Batch(signals, ids, labels, ids, (0, 4, 10), step_targets=1)


def run(ledger: Ledger, trainer: Trainer, num_steps: int) -> dict[str, float]:
    """Train: 2 s of waiting and 3 s of work for each of two micro-batches, 5 s of validation, 4 s for a checkpoint."""
    step, time = (build_batch(), build_batch()), trainer.time
    module: Any = Module(model=None, logged={}, device=torch.device("cpu"))
    ledger.setup(trainer, module, "fit")
    time.seconds += 2
    ledger.on_train_start(trainer, module)
    for number in range(num_steps):
        time.seconds += 2
        ledger.on_train_batch_start(trainer, module, step, number)
        for batch in step:
            with module.measure(module.model, batch):
                time.seconds += 3
        ledger.on_train_batch_end(trainer, module, None, step, number)
    ledger.on_validation_start(trainer, module)
    time.seconds += 5
    ledger.on_validation_end(trainer, module)
    trainer.save_checkpoint("x")
    ledger.on_train_end(trainer, module)
    ledger.teardown(trainer, module, "fit")
    return module.logged


class Counter:
    """Counts 5 TFLOP in every forward pass."""

    def __init__(self, model: None) -> None:
        self.parts = {"llm": PartFlops(2e12, 3e12)}

    def count(self) -> Any:
        return nullcontext()


@pytest.fixture(autouse=True)
def count_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "FlopCounter", Counter)
    monkeypatch.setattr(ledger_module, "list_parts", lambda model: [("llm", None)])


def build_ledger(folder: Path, precision: str = "bf16-mixed") -> Ledger:
    return Ledger(folder, precision, Throughput(SimpleNamespace(step_tokens=1, step_samples=1)))


def test_seconds_flops_and_restarts_add_up(tmp_path: Path, time: Time) -> None:
    first = build_ledger(tmp_path)
    run(first, Trainer(time), num_steps=2)
    state = first.state_dict()
    run(build_ledger(tmp_path), Trainer(time), num_steps=3)  # killed before its first checkpoint
    resumed = build_ledger(tmp_path)
    resumed.load_state_dict(state)
    logged = run(resumed, Trainer(time), num_steps=1)
    # two ranks with two micro-batches of 5 TFLOP, in 2 x (1 + 3) s
    assert logged["train/tflops"] == pytest.approx(20 / 8) and logged["train/clips_per_second"] == 4 / 8
    facts = resumed.summary()
    assert facts["flops"]["total"] == pytest.approx(3 * 20e12) == facts["flops"]["parts"]["llm"]
    assert facts["time"] == {"start": 6, "data_wait": 12, "compute": 36, "validation": 15, "checkpoint": 12, "end": 0}
    assert facts["processes"] == 3 and len(json.loads(resumed.file.read_text())) == 3
    assert facts["goodput"] == pytest.approx(3 * 6 / 81), "three of the six steps are the result's"
    assert facts["tflops_per_second"] == pytest.approx(60 / 24) and facts["clips_per_second"] == 12 / 24


@pytest.mark.parametrize(
    ("precision", "device", "mfu"),
    [
        ("bf16-mixed", "NVIDIA A100-SXM4-80GB", 20 / 8 / 312 / 2),
        ("32-true", "NVIDIA A100-SXM4-80GB", None),
        ("bf16-mixed", "a device without a data sheet", None),
    ],
)
def test_mfu_is_a_share_of_the_known_peak_of_half_precision(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch, precision: str, device: str, mfu: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda root: device)
    trainer, ledger = Trainer(time), build_ledger(tmp_path, precision)
    trainer.strategy.root_device = torch.device("cuda")
    logged = run(ledger, trainer, num_steps=1)
    assert logged.get("train/mfu") == (None if mfu is None else pytest.approx(mfu))
    facts = ledger.summary()["mfu"]
    assert facts["value"] == (None if mfu is None else pytest.approx(mfu)) and facts["device"] == device
    assert "recomputed" in facts["convention"]
