"""Steps that are not finite: the policy, its account, the batches on disk, and their replay."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from omnihuman.data.collate import Packable, pack
from omnihuman.data.tasks import TASK_NOT_LISTED
from omnihuman.objective.base import Objective
from omnihuman.objective.supervised import Supervised
from omnihuman.training.bad_loss import BadLossPolicy, load_batches, save_batches
from omnihuman.training.counter import SampleCounter
from omnihuman.training.runs import Run
from omnihuman.types import Batch, Features, Output
from tests.smoke.test_train import build_overrides, read_column, read_ledger, read_losses, train

SHORT = ("trainer.limit_val_batches=0", "logger=csv", "recipe.batch_size=4")


def spoil(step: int, value: float, target: str = "loss", every: bool = False) -> Callable[..., Any]:
    """Return a ``compute_loss`` whose loss or gradient is not finite from the second micro-batch of a step on."""

    def compute_loss(self: Objective, output: Output, batch: Batch) -> Any:
        is_bad = self.trainer.training and (
            self.trainer.global_step == step or (every and self.trainer.global_step > step)
        )
        if not is_bad or (len(self.step_batches) > 1 and len(self.step_losses) != 1):
            return output.loss
        if target == "loss":
            return output.loss * value
        return output.loss + (output.log_probs.sum() * 0).abs().sqrt()  # the gradient of sqrt at 0 is infinite

    return compute_loss


def read_ids(file: Path) -> list[str]:
    ids = []
    for batch in load_batches(file):
        ids += [meta["id"] for meta in batch.meta]
    return ids


def run_folder(runs: Path) -> Path:
    return runs / "nano" / "humanomni_stage1_face"


def count_samples(run: Run) -> tuple[int, int, dict[str, int]]:
    """Return planned, trained and skipped samples, without the records of other tasks."""
    ledger = read_ledger(run)
    num_unlisted = ledger["skipped"].pop(TASK_NOT_LISTED)
    return ledger["planned"] - num_unlisted, ledger["trained"], ledger["skipped"]


@pytest.mark.parametrize(
    ("target", "max_tokens"),
    [
        ("loss", 8192),
        ("gradient", 200),
        pytest.param("loss", 200, marks=pytest.mark.slow),
        pytest.param("gradient", 8192, marks=pytest.mark.slow),
    ],
)
def test_stop_names_step_samples_and_rate_and_publishes_nothing(
    target: str, max_tokens: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (*SHORT, "trainer.max_steps=4", "recipe.checkpoint_every=1", f"recipe.max_tokens={max_tokens}")
    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "compute_loss", spoil(2, float("nan"), target))
        with pytest.raises(ValueError, match=rf"step 2: the {target}.*samples .*lr .*step=2\.ckpt") as caught:
            train(corpus, tmp_path, *more)
    folder = run_folder(tmp_path)
    assert not (folder / "weights.safetensors").exists() and not (folder / "finished").exists()
    assert len(read_losses(Run(folder, ""))) == 2
    ids = read_ids(folder / "bad_loss" / "step=2.rank=0.pt")
    assert ids and all(name in str(caught.value) for name in ids[:8])
    resumed = train(corpus, tmp_path, *more)  # the cause is gone
    assert len(read_losses(resumed)) == 4 and count_samples(resumed) == (16, 16, {})


def test_skip_leaves_parameters_and_optimizer_as_they_are(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights as with a learning rate and a decay of zero in that step."""
    more = (*SHORT, "trainer.max_steps=4", "recipe.checkpoint_every=1", "on_bad_loss=skip", "callback=ema")
    states = {}
    save = BadLossPolicy.on_save_checkpoint

    def record(self: BadLossPolicy, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        parameters = [parameter.detach().clone() for parameter in module.parameters() if parameter.requires_grad]
        moments = [state["exp_avg"].clone() for state in trainer.optimizers[0].state.values()]
        average = trainer.callbacks[[type(callback).__name__ for callback in trainer.callbacks].index("TrainableEMA")]
        averages = [x.detach().clone() for x in average._average_model.parameters()]
        states[trainer.global_step] = [*parameters, *moments, *averages]
        save(self, trainer, module, checkpoint)

    monkeypatch.setattr(BadLossPolicy, "on_save_checkpoint", record)
    monkeypatch.setattr(Supervised, "compute_loss", spoil(2, float("inf")))
    run = train(corpus, tmp_path, *more)
    assert all(torch.equal(a, b) for a, b in zip(states[2], states[3], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(states[3], states[4], strict=True))
    assert count_samples(run) == (16, 12, {"bad_loss": 4})
    lines = [json.loads(line) for line in (run.folder / "skipped.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines if line["reason"] == "bad_loss"] == read_ids(
        run.folder / "bad_loss" / "step=2.rank=0.pt"
    )
    assert [math.isfinite(norm) for norm in read_column(run, "train/grad_norm")] == [True, True, False, True]


def test_skip_stops_after_many_bad_steps(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervised, "compute_loss", spoil(1, float("nan"), every=True))
    monkeypatch.setattr("omnihuman.training.bad_loss.MAX_CONSECUTIVE", 3)
    with pytest.raises(ValueError, match=r"step 3: .* 3 in a row"):
        train(corpus, tmp_path, *SHORT, "trainer.max_steps=6", "on_bad_loss=skip")


def test_runaway_training_never_finishes(corpus: Path, tmp_path: Path) -> None:
    rate = ("recipe.lr=1e9", "trainer.gradient_clip_val=null")
    more = ("init_from=[]", "trainer.max_steps=6", "frames=2", "validation.views=[]", "data.features=null")
    with pytest.raises(ValueError, match=r"step \d.*not finite.*lr .*recipe\.lr"):
        train(corpus, tmp_path, *SHORT, *rate, *more, experiment="humanomni_stage1")
    folder = tmp_path / "nano" / "humanomni_stage1"
    assert not (folder / "weights.safetensors").exists() and not (folder / "finished").exists()


def test_weights_that_are_not_finite_are_not_published(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step has a finite loss and gradient, but its update overflows."""
    step = torch.optim.AdamW.step

    def overflow(self: torch.optim.AdamW, closure: Any = None) -> Any:
        loss = step(self, closure)
        self.param_groups[0]["params"][0].data[0] = float("inf")
        return loss

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    for every in (1, 50):
        with pytest.raises(ValueError, match=r"1 of 4 trained tensors.*projectors\.face"):
            train(corpus, tmp_path / str(every), *SHORT, "trainer.max_steps=1", f"recipe.checkpoint_every={every}")
        folder = run_folder(tmp_path / str(every))
        assert not list(folder.glob("checkpoints/*")) and not (folder / "weights.safetensors").exists()


def test_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_bad_loss=ignore"):
        BadLossPolicy(tmp_path, SampleCounter(tmp_path / "skipped.jsonl"), "ignore")


def test_overflow_under_a_scaler_is_left_to_the_scaler(tmp_path: Path) -> None:
    """As long as it can lower its scale; then the step is bad."""
    layer, batch = nn.Linear(1, 1), pack([Packable({}, [1], [1], meta={"id": "a"})], {}, step_targets=1)
    optimizer = torch.optim.AdamW(layer.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    trainer = SimpleNamespace(
        strategy=strategy,
        global_step=0,
        global_rank=0,
        optimizers=[optimizer],
        precision_plugin=SimpleNamespace(scaler=scaler),
    )
    module = SimpleNamespace(
        step_losses=[torch.tensor(1.0)], step_batches=(batch,), is_step_skipped=False, log=lambda *args, **kwargs: None
    )
    policy = BadLossPolicy(tmp_path, SampleCounter(tmp_path / "skipped.jsonl"), "stop")
    layer.weight.grad = torch.full((1, 1), float("inf"))
    scaler.scale(torch.tensor(1.0))
    policy.on_before_optimizer_step(trainer, module, optimizer)
    assert module.is_step_skipped and policy.num_bad == 0 and layer.weight.grad is not None
    scaler.update(1.0)
    with pytest.raises(ValueError, match=r"gradient.* finite"):
        policy.on_before_optimizer_step(trainer, module, optimizer)


def test_batches_survive_the_disk(tmp_path: Path) -> None:
    features = Features(torch.randn(1, 2, 4, 3), torch.ones(1, 2, 4, dtype=torch.bool), (2, 2))
    sample = Packable(
        {"video": torch.zeros(2, 3, 2, 2, dtype=torch.uint8)},
        [1, 2],
        [1, 2],
        {"id": "a", "times": [0.0]},
        {},
        {"face": features},
    )
    blank = Features(torch.zeros(1, 1, 4, 3), torch.zeros(1, 1, 4, dtype=torch.bool), (2, 2))
    batch = pack([sample], {"video": torch.zeros(1, 3, 2, 2)}, 2, [{"id": "b", "reason": "cut"}], {"face": blank})
    save_batches(tmp_path / "x" / "a.pt", [batch])
    (loaded,) = load_batches(tmp_path / "x" / "a.pt")
    assert loaded.meta == batch.meta and loaded.skipped == batch.skipped and loaded.step_targets == 2
    assert torch.equal(loaded.signals["video"].values, batch.signals["video"].values)
    assert torch.equal(loaded.features["face"].tokens, features.tokens) and loaded.features["face"].grid == (2, 2)
    (tmp_path / "b.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"replay=.*b\.pt"):
        load_batches(tmp_path / "b.pt")


def test_replay_names_the_module_and_writes_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (*SHORT, "trainer.max_steps=4", "recipe.checkpoint_every=1")
    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "compute_loss", spoil(2, float("nan")))
        with pytest.raises(ValueError, match="step 2"):
            train(corpus, tmp_path, *more)
    file = run_folder(tmp_path) / "bad_loss" / "step=2.rank=0.pt"
    before = sorted(run_folder(tmp_path).rglob("*"))
    console = Console(record=True, width=400)
    monkeypatch.setattr("omnihuman.training.stage.console", console)
    train(corpus, tmp_path, *more, f"replay='{file}'")
    assert re.search(r"weights of step 2: loss \d", console.export_text(clear=False))
    assert "later weights are the cause" in console.export_text()
    (batch,) = load_batches(file)
    forward = nn.Linear.forward

    def fail(self: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        output = forward(self, inputs)
        return output * float("nan") if getattr(self, "is_broken", False) else output

    load = torch.nn.Module.train

    def mark(self: nn.Module, mode: bool = True) -> nn.Module:
        if hasattr(self, "projectors"):
            next(part for part in self.projectors.modules() if isinstance(part, nn.Linear)).is_broken = True
        return load(self, mode)

    monkeypatch.setattr(nn.Linear, "forward", fail)
    monkeypatch.setattr(nn.Module, "train", mark)
    train(corpus, tmp_path, *more, f"replay='{file}'")
    assert "the output of projectors.face.layers.0 is not finite" in console.export_text()
    assert sorted(run_folder(tmp_path).rglob("*")) == before and batch.meta


SCRIPT = """
import sys
from omnihuman.objective.supervised import Supervised
from omnihuman.train import main

def compute_loss(self, output, batch):
    is_bad = self.trainer.training and self.trainer.global_step == 1 and self.trainer.global_rank == 1
    return output.loss * float("nan") if is_bad else output.loss

Supervised.compute_loss = compute_loss
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_ranks_agree_on_a_bad_step_of_one(
    trainer: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    more = (*SHORT, f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=3")
    overrides = [
        "+experiment=humanomni_stage1_face",
        *build_overrides(corpus, tmp_path, *more, "recipe.checkpoint_every=1"),
    ]

    def launch(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *overrides, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path
        )

    stopped = launch("on_bad_loss=stop")
    assert stopped.returncode == 1 and "step 1: the loss is not finite" in stopped.stderr, stopped.stderr[-2000:]
    folder = run_folder(tmp_path)
    assert [path.name for path in (folder / "bad_loss").iterdir()] == ["step=1.rank=1.pt"]
    assert not (folder / "finished").exists()
    console = Console(record=True, width=400)
    monkeypatch.setattr("omnihuman.training.stage.console", console)
    file = folder / "bad_loss" / "step=1.rank=1.pt"
    train(corpus, tmp_path, *more, "recipe.checkpoint_every=1", f"replay='{file}'")
    assert re.search(r"weights of step 1: loss \d.*later weights", console.export_text())
    skipped = launch("on_bad_loss=skip")  # resumes
    assert skipped.returncode == 0, skipped.stderr[-2000:]
    run = Run(folder, "")
    assert count_samples(run) == (12, 8, {"bad_loss": 4})
    assert all(tensor.isfinite().all() for tensor in load_file(run.weights).values())


class Step:
    """A trainer and a module at the end of a step of one layer, on one of two ranks whose flags are the same."""

    def __init__(self) -> None:
        self.layer = nn.Linear(1, 1, bias=False)
        self.optimizer = torch.optim.AdamW(self.layer.parameters())
        strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor * 2)
        self.trainer = SimpleNamespace(
            strategy=strategy, global_step=0, global_rank=0, optimizers=[self.optimizer], precision_plugin=None
        )
        self.module = SimpleNamespace(step_losses=[torch.tensor(1.0)], is_step_skipped=False, log=lambda *a, **k: None)
        self.module.step_batches = [pack([Packable({}, [1], [1], meta={"id": "a"})], {}, step_targets=1)]

    def check(self, policy: BadLossPolicy, norm: float) -> bool:
        """Return true if a step with this gradient norm is taken."""
        self.layer.weight.grad = torch.full((1, 1), norm)
        policy.on_before_optimizer_step(self.trainer, self.module, self.optimizer)
        assert (self.layer.weight.grad is None) == self.module.is_step_skipped
        return not self.module.is_step_skipped


def test_spike_of_the_gradient_norm_is_a_bad_step(tmp_path: Path) -> None:
    counter, step = SampleCounter(tmp_path / "skipped.jsonl"), Step()
    policy = BadLossPolicy(tmp_path, counter, "skip", spike_factor=4)
    assert step.check(policy, 90.0)  # nothing to compare it with
    assert all(step.check(policy, 1.0 + 0.01 * number) for number in range(30))
    assert step.check(policy, 4.0) and not step.check(policy, 5.0)
    skipped = counter._train.skipped
    assert [entry["id"] for entry in skipped] == ["a"] and "spike_factor" in skipped[0]["message"]
    assert read_ids(tmp_path / "bad_loss" / "step=0.rank=0.pt") == ["a"]
    resumed = BadLossPolicy(tmp_path, counter, "stop", spike_factor=4)
    resumed.load_state_dict(policy.state_dict())
    assert 5.0 not in resumed.norms and resumed.norms == policy.norms
    with pytest.raises(ValueError, match=r"gradient norm 5 .*spike_factor=4"):
        step.check(resumed, 5.0)
    never = BadLossPolicy(tmp_path, counter, "stop")
    assert all(step.check(never, norm) for norm in [1.0] * 30 + [1e6]) and not never.norms


@pytest.mark.parametrize("factor", [1, 0.5, True, "10"])
def test_spike_factor_must_be_above_1(factor: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spike_factor="):
        BadLossPolicy(tmp_path, SampleCounter(tmp_path / "skipped.jsonl"), "skip", spike_factor=factor)
