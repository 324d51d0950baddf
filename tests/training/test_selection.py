"""The weights of the best validation are the run's, and a run without improvement ends; also after a resume."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from omnihuman.build import build, compose_config
from omnihuman.metric.choice import ChoiceAccuracy
from omnihuman.metric.emotion import EmotionRecall
from omnihuman.objective.base import Objective
from omnihuman.training.generation_metrics import GenerationMetrics
from omnihuman.training.runs import Run, build_run
from omnihuman.training.selection import Selection, is_better
from omnihuman.training.state import read_state
from tests.programs import run_ranks
from tests.smoke.test_train import build_overrides, fail_at_step, read_column, read_ledger, train

SHORT = (
    "recipe.batch_size=2",
    "trainer.max_steps=6",
    "data.val_limit=2",
    "validation.views=[]",
    "val_every=2",
)
LOSSES = {0: 0.1, 2: 3.0, 4: 1.0, 6: 2.0, 8: 1.0, 10: 0.5}
"""Validation losses that the tests script: the best of six steps is that of step 4."""


def fit(corpus: Path, runs: Path, *more: str) -> Run:
    """Train a few steps."""
    return train(corpus, runs, *SHORT, *more)


def script(monkeypatch: pytest.MonkeyPatch, losses: Mapping[int, float] = LOSSES) -> None:
    """Replace the validation loss of a step."""

    def on_validation_epoch_end(self: Objective) -> None:
        self.log("val/loss", losses[self.trainer.global_step], batch_size=1)

    monkeypatch.setattr(Objective, "on_validation_epoch_end", on_validation_epoch_end)


def build_trainer(step: int, **metrics: float) -> Any:
    values = {f"val/{name}": torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(
        global_step=step,
        callback_metrics=values,
        sanity_checking=False,
        should_stop=False,
        is_global_zero=True,
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )


def build_selection(
    folder: Path, num_best: int = 1, patience: int | None = None, monitor: str = "val/uar"
) -> Selection:
    folder.mkdir(exist_ok=True)
    return Selection(monitor, folder, lambda file: file.touch() or None, num_best, patience)


def validate(selection: Selection, values: Mapping[int, float]) -> list[bool]:
    """Validate at steps with these values, and return whether the training ends after each."""
    stops = []
    for step, value in values.items():
        trainer = build_trainer(step, uar=value)
        selection.on_validation_end(trainer, None)
        stops.append(trainer.should_stop)
    return stops


def list_steps(folder: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step=")) for file in folder.iterdir())


def test_best_is_the_first_of_equal_values_and_never_the_untrained_one(tmp_path: Path) -> None:
    selection = build_selection(tmp_path, num_best=2)
    nan = float("nan")
    validate(selection, {0: 90.0, 1: nan, 2: 50.0, 3: 70.0, 4: 70.0, 5: 60.0, 6: nan})
    assert selection.best_step == 3 and list_steps(tmp_path) == [3, 4]
    assert selection.find_weights().name == "step=3.safetensors"
    selection.finish()
    assert list_steps(tmp_path) == [4]
    assert is_better("val/loss", 1.0, 2.0) and not is_better("val/loss", nan, 2.0) and is_better("val/uar", 2.0, nan)


def test_patience_counts_validations_since_the_best(tmp_path: Path) -> None:
    values = {0: 90.0, 1: 50.0, 2: 50.0, 3: 60.0, 4: 40.0, 5: 40.0}
    selection = build_selection(tmp_path, num_best=0, patience=2)
    assert validate(selection, values) == [False, False, False, False, False, True]
    assert not list_steps(tmp_path)
    resumed = build_selection(tmp_path, num_best=0, patience=2)
    resumed.load_state_dict(selection.state_dict())
    trainer = build_trainer(5)
    resumed.on_train_start(trainer, None)
    assert trainer.should_stop, "it had ended before the interruption"


def test_weights_that_a_checkpoint_names_stay_until_the_next_one(tmp_path: Path) -> None:
    selection = build_selection(tmp_path)
    validate(selection, {1: 50.0})
    state = json.loads(json.dumps(list(selection.state_dict()["scores"].items())))
    validate(selection, {2: 60.0, 3: 70.0})
    assert list_steps(tmp_path) == [1, 3]
    resumed = build_selection(tmp_path)
    resumed.load_state_dict({"scores": dict(state), "losses": {}, "last_step": 1})
    resumed.on_train_start(build_trainer(1), None)
    assert list_steps(tmp_path) == [1] and resumed.best_step == 1, "a later start may be worse"
    selection.finish()
    assert not tmp_path.exists(), "nor are they needed at the end"
    with pytest.raises(ValueError, match=r"step=1\.safetensors.*overwrite=true"):
        resumed.find_weights()


def test_missing_monitor_lists_the_metrics(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"monitor=val/x .*val/loss, val/uar"):
        build_selection(tmp_path, monitor="val/x").on_validation_end(build_trainer(0, loss=1.0, uar=1.0), None)


@pytest.fixture(scope="module")
def last(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose weights are those of the last step, with a copy of the checkpoint of step 4."""
    finish = Run.finish

    def copy_and_finish(run: Run) -> None:
        shutil.copytree(run.checkpoints, run.folder / "copy")
        finish(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "finish", copy_and_finish)
        run = fit(corpus, tmp_path_factory.mktemp("last"), "recipe.checkpoint_every=4")
    assert not run.checkpoints.exists()
    return run


def read_checkpoint(run: Run) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_state(run.folder / "copy" / "step=4.ckpt")["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def test_weights_are_those_of_the_best_validation(
    last: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch)
    run = fit(corpus, tmp_path, "select=best", "save_top_k=2", "validate_first=true")
    weights, expected = load_file(run.weights), read_checkpoint(last)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert list_steps(run.folder / "best") == [6]
    assert load_file(run.folder / "best" / "step=6.safetensors").keys() == weights.keys()
    ledger = read_ledger(run)
    assert (ledger["weights_of_step"], ledger["selected_by"], ledger["steps"]) == (4, "val/loss", 6)
    assert ledger["best"] == {"val/loss": 1.0} and ledger["best_step"] == {"val/loss": 4}
    assert ledger["untrained"] == {"val/loss": pytest.approx(0.1)} and ledger["last"] == {"val/loss": 2.0}
    assert read_ledger(last)["weights_of_step"] == 6 and not (last.folder / "best").exists()


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (3, ("recipe.checkpoint_every=2",)),
        pytest.param(4, ("recipe.checkpoint_every=2",), marks=pytest.mark.slow),
        pytest.param(5, ("recipe.checkpoint_every=3", "callback=ema"), marks=pytest.mark.slow),
        (5, ("recipe.checkpoint_every=1", "val_every=null", "data.records=few.json")),  # the end of an epoch
    ],
)
def test_resumed_run_selects_as_an_uninterrupted_one(
    step: int, more: tuple[str, ...], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch)
    records = [record for record in json.loads((corpus / "train.json").read_text()) if record["task"] == "face"]
    (tmp_path / "few.json").write_text(json.dumps(records[:4]))  # an epoch of two steps
    monkeypatch.chdir(tmp_path)
    more = (*more, "select=best", "recipe.max_tokens=300")
    uninterrupted = fit(corpus, tmp_path / "uninterrupted", *more)
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", fail_at_step(step))
        with pytest.raises(RuntimeError, match="power failure"):
            fit(corpus, tmp_path / "resumed", *more)
    resumed = fit(corpus, tmp_path / "resumed", *more)
    assert resumed.weights.read_bytes() == uninterrupted.weights.read_bytes()
    for column in ("train/loss", "val/loss"):
        assert read_column(resumed, column) == read_column(uninterrupted, column)
    assert read_column(resumed, "val/loss") == [3.0, 1.0, 2.0]
    assert read_ledger(resumed)["weights_of_step"] == 4 and not (resumed.folder / "best").exists()


@pytest.mark.slow
def test_average_is_what_is_selected(last: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch)
    run = fit(corpus, tmp_path, "select=best", "callback=ema", "callback.ema.decay=0.0", "save_top_k=3")
    expected = read_checkpoint(last)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(run.weights).items())
    slow = fit(corpus, tmp_path / "slow", "select=best", "callback=ema", "callback.ema.decay=1.0")
    assert any(not torch.equal(value, expected[name]) for name, value in load_file(slow.weights).items())


def kill(*args: Any) -> None:
    raise RuntimeError("killed")


def test_patience_ends_a_run_and_a_resume_does_not_go_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch)
    more = ("trainer.max_steps=10", "recipe.max_epochs=9", "patience=2", "recipe.checkpoint_every=2")
    run = fit(corpus, tmp_path / "a", *more)
    assert len(read_column(run, "train/loss")) == 8 and read_ledger(run)["weights_of_step"] == 8
    with monkeypatch.context() as patch:
        patch.setattr("omnihuman.training.stage.write_summary", kill)
        with pytest.raises(RuntimeError, match="killed"):
            fit(corpus, tmp_path / "b", *more)
        patch.setattr(Objective, "training_step", lambda *args: pytest.fail("trained on"))
        with pytest.raises(RuntimeError, match="killed"):
            fit(corpus, tmp_path / "b", *more)
    again = fit(corpus, tmp_path / "b", *more)
    assert again.weights.read_bytes() == run.weights.read_bytes()


@pytest.mark.parametrize("max_tokens", [pytest.param(8192, marks=pytest.mark.slow), 300])
def test_validation_counts_optimizer_steps_and_the_end_is_validated(
    max_tokens: int, corpus: Path, tmp_path: Path
) -> None:
    steps = []
    more = ("val_every=4", f"recipe.max_tokens={max_tokens}", "recipe.max_epochs=9", "validate_first=true")
    run = fit(corpus, tmp_path, *more)
    for line in (run.folder / "metrics.csv").read_text().splitlines():
        steps.append(line.partition(",")[0])
    losses = read_column(run, "val/loss")
    assert len(losses) == 3 and steps == ["step", *map(str, range(7))]
    assert read_ledger(run)["last"]["val/loss"] == losses[-1] and run.loss == min(losses[1:])


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_two_processes_select_as_one(trainer: str, corpus: Path, tmp_path: Path) -> None:
    # validations after step 3 and, outside of the training, at the end: both weights stay
    more = ("select=best", "val_every=3", "trainer.max_steps=4", "save_top_k=2", "recipe.checkpoint_every=3")
    one = fit(corpus, tmp_path / "one", *more)
    ranks = (f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2")
    overrides = ["+experiment=humanomni_stage1_face", *build_overrides(corpus, tmp_path / "two", *SHORT, *more, *ranks)]
    run_ranks(2, "omnihuman.train", *overrides)
    two = Run(tmp_path / "two" / "nano" / "humanomni_stage1_face", "")
    ledger = read_ledger(two)
    assert ledger["weights_of_step"] == read_ledger(one)["weights_of_step"] == ledger["best_step"]["val/loss"]
    (file,) = (two.folder / "best").iterdir()
    for path in (Path("weights.safetensors"), file.relative_to(two.folder)):
        weights, expected = load_file(two.folder / path), load_file(one.folder / path)
        assert weights.keys() == expected.keys()
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        (["monitor=val/loss"], False),
        (["val_every=3"], False),
        (["save_top_k=3"], False),
        (["select=best"], True),
        (["patience=3"], True),
    ],
)
def test_digest_has_what_decides_the_selection(more: list[str], changes: bool) -> None:
    def digest(*overrides: str) -> str:
        return build_run(compose_config(["+experiment=humanomni_stage1_face", *overrides])).digest

    assert (digest(*more) != digest()) is changes
    assert digest("select=best", *more) != digest("select=best") or more in (["select=best"], ["save_top_k=3"])
    for key in ("data.val_limit=3", "validation.limit=3", "trainer.limit_val_batches=3"):
        assert digest(key) == digest() and digest("select=best", key) != digest("select=best")


def test_headline_score_of_the_answers_comes_first(corpus: Path) -> None:
    config = compose_config(["+experiment=humanomni_stage1_face", *build_overrides(corpus, corpus, "data.tasks=null")])
    metrics = {"nothing": ChoiceAccuracy(), "emotion": EmotionRecall(["sad"]), "same_person": ChoiceAccuracy()}
    scores = GenerationMetrics(build(config.data), metrics, ["V", "VA"]).list_scores()
    assert scores == ["val/emotion/uar", "val/emotion/war", "val/emotion_VA/uar", "val/emotion_VA/war"], (
        "others have no A"
    )
    assert GenerationMetrics(build(config.data), metrics).list_scores() == []


def test_of_equal_scores_that_with_the_lower_loss_is_better(tmp_path: Path) -> None:
    selection = build_selection(tmp_path / "best")
    for step, loss in {2: 6.0, 4: 5.0, 6: 5.5}.items():
        selection.on_validation_end(build_trainer(step, uar=0.0, loss=loss), None)
    assert selection.best_step == 4 and list_steps(tmp_path / "best") == [4]
    resumed = build_selection(tmp_path / "best")
    resumed.load_state_dict(selection.state_dict())
    assert resumed.best_step == 4
