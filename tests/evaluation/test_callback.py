"""Benchmarks during training: scores, their places, and a training that they do not change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from omnihuman.build import build, compose_config
from omnihuman.evaluation.callback import Benchmarks, select_scores, unchanged
from omnihuman.evaluation.folder import read_predictions
from omnihuman.metric.score import Score
from omnihuman.objective.base import Objective
from omnihuman.training.runs import Run, build_run
from tests.programs import run_ranks
from tests.smoke.test_train import build_overrides, fail_at_step, read_column, read_ledger, read_losses, train

SHORT = ("recipe.batch_size=2", "trainer.max_steps=4", "data.val_limit=2", "validation.views=[]", "val_every=2")


def ask(corpus: Path, options: str = "limit: 3", *more: str) -> list[str]:
    """Return the overrides that ask questions of the small corpus during training."""
    entry = f"{{benchmark: sample, root: {corpus}, split: val, {options}}}"
    return ["callback=benchmarks", f"callback.benchmarks.ask={{faces: {entry}}}", *more]


def fit(corpus: Path, runs: Path, *more: str) -> Run:
    """Train a few steps."""
    return train(corpus, runs, *SHORT, *more)


def build_callback(*more: str) -> Benchmarks:
    config = compose_config(["+experiment=humanomni_stage1_face", "callback=benchmarks", *more])
    callback = build(config.callback.benchmarks)
    assert isinstance(callback, Benchmarks)
    return callback


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run without benchmarks."""
    return fit(corpus, tmp_path_factory.mktemp("plain"), "validate_first=true")


def test_every_validation_asks_and_the_training_stays_the_same(plain: Run, corpus: Path, tmp_path: Path) -> None:
    monitor = ("select=best", "monitor=bench/faces/war", "callback.benchmarks.num_workers=1")
    run = fit(corpus, tmp_path, "validate_first=true", *ask(corpus), *monitor)
    assert read_losses(run) == read_losses(plain)
    assert read_column(run, "val/loss") == read_column(plain, "val/loss")
    values = read_column(run, "bench/faces/war")
    assert len(values) == 3 and all(0 <= value <= 100 for value in values)
    ledger = read_ledger(run)
    assert ledger["selected_by"] == "bench/faces/war" and ledger["best"]["bench/faces/war"] == max(values[1:])
    assert ledger["untrained"]["bench/faces/war"] == values[0]
    files = sorted(file.name for file in (run.folder / "benchmarks" / "faces").iterdir())
    assert files == ["step=0.jsonl", "step=2.jsonl", "step=4.jsonl"]
    predictions = read_predictions(run.folder / "benchmarks" / "faces" / "step=4.jsonl", "sample")
    assert len(predictions) == 3 and all(prediction.answer is not None for prediction in predictions)
    scores = {
        score.name: score.value for score in build_callback(*ask(corpus)[1:]).entries[0].benchmark.scores(predictions)
    }
    assert scores["war"] == pytest.approx(values[-1])


@pytest.mark.slow
def test_a_number_of_steps_and_the_end_without_validation(plain: Run, corpus: Path, tmp_path: Path) -> None:
    silent = ("data.val_records=null", "val_every=null", "trainer.max_steps=4")
    every = fit(corpus, tmp_path / "every", *silent, *ask(corpus, "limit: 2", "callback.benchmarks.every=3"))
    assert read_losses(every) == read_losses(plain)
    assert len(read_column(every, "bench/faces/uar")) == 2
    assert read_column(every, "step") == [0, 1, 2, 3, 4]
    assert (every.folder / "benchmarks" / "faces" / "step=3.jsonl").is_file()
    end = fit(corpus, tmp_path / "end", *silent, *ask(corpus, "limit: 2"))
    assert read_column(end, "bench/faces/uar") == read_column(every, "bench/faces/uar")[1:]


def test_resumed_training_goes_on(plain: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("recipe.checkpoint_every=2", "validate_first=true", *ask(corpus, "limit: 2", "callback.benchmarks.every=2"))
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", fail_at_step(3))
        with pytest.raises(RuntimeError, match="power failure"):
            fit(corpus, tmp_path, *more)
    run = fit(corpus, tmp_path, *more)
    assert read_losses(run) == read_losses(plain) and len(read_column(run, "bench/faces/war")) == 2
    assert max(read_column(run, "train/data_wait")) < 0.99  # neither answers nor the time before a resume are waiting


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_two_ranks_answer_as_one(trainer: str, corpus: Path, tmp_path: Path) -> None:
    one = fit(corpus, tmp_path / "one", *ask(corpus))
    ranks = (f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2")
    overrides = build_overrides(corpus, tmp_path / "two", *SHORT, *ask(corpus), *ranks)
    run_ranks(2, "omnihuman.train", "+experiment=humanomni_stage1_face", *overrides)
    two = Run(tmp_path / "two" / "nano" / "humanomni_stage1_face", "")
    answers = []
    for run in (one, two):
        file = run.folder / "benchmarks" / "faces" / "step=4.jsonl"
        answers.append([(prediction.id, prediction.answer) for prediction in read_predictions(file)])
    assert answers[0] == answers[1] and read_column(one, "bench/faces/war") == read_column(two, "bench/faces/war")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("dfwe: {}", "no benchmark dfwe"),
        ("dfew: {}", r"ask\.dfew: root is missing"),
        ("dfew: {root: /nowhere}", r"ask\.dfew: .*nowhere"),
        ("sample: {tsk: emotion}", "unknown option tsk"),
        ("sample: {task: emotions}", r"ask\.sample: task=emotions"),
        ("sample: {limit: 0}", r"sample\.limit=0"),
        ("sample: {view: VX}", "view=VX"),
        ("sample: 200", "sample=200"),
    ],
)
def test_mistake_is_named_before_the_first_step(entry: str, message: str, corpus: Path) -> None:
    entry = entry.replace("sample: {", f"sample: {{root: {corpus}, split: val, ")
    with pytest.raises(ValueError, match=message) as caught:
        build_callback(f"callback.benchmarks.ask={{{entry}}}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["monitor=bench/faces/wer", "select=best"], "bench/faces/uar"),
        (["monitor=bench/faces/war", "select=best", "callback.benchmarks.every=2"], "no metric"),
        (["callback.benchmarks.every=0"], "every=0"),
        (["callback=[benchmarks,ema]", "callback.benchmarks.every=2"], "callback=ema"),
    ],
)
def test_monitor_and_steps_are_checked(more: Sequence[str], message: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(corpus, tmp_path, *ask(corpus), *more)


def test_view_that_the_model_does_not_read(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ask\.faces: view=A"):
        fit(corpus, tmp_path, *ask(corpus, "view: A"))


def test_benchmarks_decide_a_run_only_by_what_is_selected(corpus: Path) -> None:
    def digest(*more: str) -> str:
        return build_run(compose_config(["+experiment=humanomni_stage1_face", *more])).digest

    assert digest(*ask(corpus)) == digest() != digest("callback=ema")
    assert digest(*ask(corpus), "select=best") != digest("select=best")


def test_scores_of_groups_are_left_out() -> None:
    def name(*names: str) -> list[str]:
        scores: list[Any] = [Score.mean(name, ["a"], [1.0]) for name in names]
        return [score.name for score in select_scores(scores)]

    assert name("war", "uar", "war/fold 1") == ["war", "uar"]
    assert name("wer/en_us", "cer/cmn_hans_cn") == ["wer/en_us", "cer/cmn_hans_cn"]


def test_modes_and_random_states_stay() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of memory"), unchanged(model):
        model.eval()
        raise RuntimeError("out of memory")
    assert [module.training for module in model] == [True, False]
    with unchanged(model):
        torch.rand(3)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
