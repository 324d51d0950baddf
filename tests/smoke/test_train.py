"""Whole runs on a few clips: seeds, checkpoints, bad samples, several processes."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from omnihuman.build import compose_config
from omnihuman.data.tasks import TASK_NOT_LISTED
from omnihuman.modality import KINDS
from omnihuman.objective.base import Objective
from omnihuman.training.checkpoint import list_checkpoints
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage
from omnihuman.training.state import read_state
from tests.programs import run_ranks


def build_overrides(corpus: Path, runs: Path, *more: str) -> list[str]:
    """Return the overrides of a short run; all runs of the session share their features."""
    return [
        "data=json",
        f"data.records={corpus}/train.json",
        f"data.val_records={corpus}/val.json",
        f"data.root={corpus}",
        f"data.features={corpus}/features",
        f"runs={runs}",
        "data.num_workers=0",
        "recipe.batch_size=8",
        "recipe.max_epochs=4",
        "validate_first=false",
        *more,
    ]


def train(corpus: Path, runs: Path, *more: str, experiment: str = "humanomni_stage1_face") -> Run:
    overrides = [f"+experiment={experiment}", *build_overrides(corpus, runs, *more)]
    return run_stage(compose_config(overrides), overrides)


def read_column(run: Run, name: str) -> list[float]:
    """Return the values of a metric; empty if the run has no such metric."""
    with (run.folder / "metrics.csv").open(newline="") as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row.get(name)]


def read_losses(run: Run) -> list[float]:
    return read_column(run, "train/loss")


def read_ledger(run: Run) -> dict[str, Any]:
    ledger: dict[str, Any] = json.loads((run.folder / "ledger.json").read_text())
    return ledger


@pytest.mark.slow
def test_one_seed_gives_identical_losses_and_weights(corpus: Path, tmp_path: Path) -> None:
    first = train(corpus, tmp_path / "a", "trainer.max_steps=4")
    second = train(corpus, tmp_path / "b", "trainer.max_steps=4", "data.num_workers=2")
    assert read_losses(first) == read_losses(second) and len(read_losses(first)) == 4
    assert first.weights.read_bytes() == second.weights.read_bytes()
    other = train(corpus, tmp_path / "c", "trainer.max_steps=4", "seed=7")
    assert read_losses(other) != read_losses(first)
    ask, _ = map(shlex.split, read_ledger(first)["next"].splitlines())
    (clip,) = [argument for argument in ask if argument.partition("=")[0] in KINDS]
    assert Path(clip.partition("=")[2]).is_file() and f"run={first.folder}" in ask


def test_finished_run_is_not_trained_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("trainer.max_steps=1", "data.val_limit=4")
    train(corpus, tmp_path, *more)
    monkeypatch.setattr("omnihuman.training.stage.fit", lambda *args: pytest.fail("trained again"))
    train(corpus, tmp_path, *more)


def test_run_that_ends_within_an_epoch_is_validated(corpus: Path, tmp_path: Path) -> None:
    loss = train(corpus, tmp_path, "trainer.max_steps=1", "recipe.batch_size=2", "data.val_limit=4").loss
    assert loss is not None and 0 < loss < 10


def fail_at_step(step: int) -> Callable[..., Any]:
    """Return a training step that raises at an optimizer step."""
    training_step = Objective.training_step

    def failing_step(self: Objective, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise RuntimeError("power failure")
        return training_step(self, batch, batch_idx)

    return failing_step


def test_resumed_run_has_the_losses_of_an_uninterrupted_one(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # several packed sequences for each step
    more = ("trainer.max_steps=8", "recipe.checkpoint_every=2", "recipe.max_tokens=500", "data.val_limit=4")
    uninterrupted = train(corpus, tmp_path / "uninterrupted", *more)
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", fail_at_step(5))
        with pytest.raises(RuntimeError, match="power failure"):
            train(corpus, tmp_path / "resumed", *more)
    resumed = train(corpus, tmp_path / "resumed", *more)
    assert read_losses(resumed) == read_losses(uninterrupted)
    ledger = read_ledger(uninterrupted)
    assert read_ledger(resumed)["trained"] == ledger["trained"] == ledger["planned"] - sum(ledger["skipped"].values())
    assert (
        read_ledger(resumed)["skipped"] == ledger["skipped"] == {"task_not_listed": ledger["skipped"][TASK_NOT_LISTED]}
    )


def test_trained_and_skipped_samples_are_the_planned_ones(corpus: Path, tmp_path: Path) -> None:
    records = json.loads((corpus / "train.json").read_text())
    videos = [record for record in records if "video" in record and record["task"] == "face"][:4]
    copy = shutil.copytree(corpus, tmp_path / "corpus", ignore=shutil.ignore_patterns("features"))
    corpus = copy  # other tests use the shared one
    (corpus / "media" / "broken.mp4").write_bytes((corpus / videos[0]["video"]).read_bytes()[:3000])
    truncated = dict(videos[0], id="truncated", video="media/broken.mp4")
    missing = dict(videos[1], id="missing", video="media/nowhere.mp4")
    (corpus / "some.json").write_text(json.dumps([truncated, missing, *videos]))
    more = (f"data.records={corpus}/some.json", "recipe.batch_size=4", "recipe.max_epochs=1")
    with pytest.raises(ValueError, match=r"broken\.mp4|nowhere\.mp4"):
        train(corpus, tmp_path, *more)
    run = train(corpus, tmp_path, *more, "data.on_bad_sample=skip")
    ledger = read_ledger(run)
    assert ledger["planned"] == ledger["trained"] + sum(ledger["skipped"].values())
    skipped = [json.loads(line)["id"] for line in (run.folder / "skipped.jsonl").read_text().splitlines()]
    assert skipped == ["truncated", "missing"] and ledger["trained"] == 4


def test_dry_run_of_7b_loads_no_weights_and_writes_no_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(record=True, width=160)
    monkeypatch.setattr("omnihuman.training.stage.console", console)
    train(corpus, tmp_path, "size=7b", "trainer=fsdp", "dry_run=true", experiment="humanomni_stage3")
    output = console.export_text()
    assert "humanomni_stage1/weights.safetensors (missing)" in output
    assert "7,615,616,512" in output and "376,889,248" in output  # Qwen2.5-7B, one STC branch
    assert "32 frames, 10 s of audio: 3136 video tokens, 167 audio tokens" in output
    assert "micro-batches of 8192 tokens" in output
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "the plan, which the run uses"


def train_on_one_and_two_ranks(corpus: Path, runs: Path, *more: str, trainer: str = "ddp") -> tuple[Run, Run]:
    """Return the runs of stage 3 in one process and in two, with the same global batch."""
    more = ("init_from=[]", "validation.views=[]", "trainer.limit_val_batches=0", *more)
    overrides = ["+experiment=humanomni_stage3", *build_overrides(corpus, runs, *more)]
    one = [*overrides, "variant=one"]
    first = run_stage(compose_config(one), one)
    two = [*overrides, "variant=two", f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2"]
    run_ranks(2, "omnihuman.train", *two)
    return first, Run(first.folder.with_name("two"), "")


@pytest.mark.parametrize("num_steps", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_two_processes_have_the_losses_of_one(num_steps: int, corpus: Path, tmp_path: Path) -> None:
    """In 20 steps every kind of sample occurs."""
    more = (f"trainer.max_steps={num_steps}", "recipe.batch_size=4", "data.features=null")
    one, two = train_on_one_and_two_ranks(corpus, tmp_path, *more)
    losses = read_losses(one)
    assert len(losses) == num_steps and losses == pytest.approx(read_losses(two), abs=1e-5)


@pytest.mark.slow
def test_ranks_with_different_modalities_have_the_losses_of_one_process(corpus: Path, tmp_path: Path) -> None:
    """Every trainable part takes part on both ranks, so none waits for the other."""
    records = json.loads((corpus / "train.json").read_text())
    video_only = next(r for r in records if "video" in r and "<audio>" not in r["conversations"][0]["value"])
    audio_only = next(r for r in records if "audio" in r)
    # one record of each kind: every batch of two has one for each rank
    (corpus / "pairs.json").write_text(json.dumps([video_only, audio_only]))
    more = (f"data.records={corpus}/pairs.json", "recipe.batch_size=2", "trainer.max_steps=4")
    one, two = train_on_one_and_two_ranks(corpus, tmp_path, *more)
    losses = read_losses(one)
    assert len(losses) == 4 and losses == pytest.approx(read_losses(two), abs=1e-5)


@pytest.mark.slow
def test_sharded_run_has_the_losses_and_the_weights_of_one_process(corpus: Path, tmp_path: Path) -> None:
    more = ("trainer.max_steps=4", "recipe.checkpoint_every=2")
    one, two = train_on_one_and_two_ranks(corpus, tmp_path, *more, trainer="fsdp")
    losses = read_losses(one)
    assert len(losses) == 4 and losses == pytest.approx(read_losses(two), abs=1e-5)
    weights, sharded_weights = load_file(one.weights), load_file(two.weights)
    assert weights.keys() == sharded_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, sharded_weights[name], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_average_of_the_weights_survives_a_resume(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (
        "trainer.max_steps=6",
        "recipe.checkpoint_every=2",
        "callback=ema",
        "patience=9",
        "logger=csv",
    )
    uninterrupted = train(corpus, tmp_path / "uninterrupted", *more)
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", fail_at_step(5))
        with pytest.raises(RuntimeError, match="power failure"):
            train(corpus, tmp_path / "resumed", *more)
    (newest, *_) = list_checkpoints(next((tmp_path / "resumed").rglob("checkpoints")))
    checkpoint = read_state(newest)
    assert len(checkpoint["current_model_state"]) == len(checkpoint["state_dict"])
    resumed = train(corpus, tmp_path / "resumed", *more)
    weights, expected = load_file(resumed.weights), load_file(uninterrupted.weights)
    plain = load_file(train(corpus, tmp_path / "plain", "trainer.max_steps=6").weights)
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
    assert any(not torch.equal(plain[name], tensor) for name, tensor in expected.items())
    assert not (resumed.folder / "tensorboard").exists()


def test_callback_that_does_not_exist_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="early"):
        train(corpus, tmp_path, "callback=early")
