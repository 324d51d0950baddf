"""A failure, however late, leaves a finished run of another config as it is."""

import hashlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from omnihuman.objective.base import Objective
from omnihuman.objective.supervised import Supervised
from omnihuman.training import assembly, stage
from omnihuman.training.attempt import locate_attempt
from omnihuman.training.callbacks import Throughput
from omnihuman.training.counter import SampleCounter
from omnihuman.training.generation_metrics import GenerationMetrics
from omnihuman.training.runs import Run
from omnihuman.training.saver import CheckpointFolders
from tests.smoke.test_train import fail_at_step
from tests.training.test_bad_loss import spoil
from tests.training.test_selection import fit

SHORT = ("trainer.max_steps=2", "recipe.max_epochs=1")
FILES = ("weights.safetensors", "metrics.csv", "skipped.jsonl", "excluded.jsonl", "ledger.json", "bad_loss/1.pt")


@pytest.fixture
def old(tmp_path: Path) -> Run:
    """Return a finished run of another config, with all files that a run can have."""
    run = Run(tmp_path / "nano" / "humanomni_stage1_face", "old", "old")
    run.open(OmegaConf.create({"name": "old"}))
    for name in (*FILES, "tensorboard/events", "checkpoints/step=9.ckpt"):
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).write_text("{}\n")
    run.finish()
    return run


@pytest.fixture(autouse=True)
def restore_signals() -> Iterator[None]:
    """Undo what Lightning does at Ctrl-C: it ignores the next one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def digest_files(folder: Path) -> dict[str, str]:
    """Return path -> digest of all files of runs; plans of data are for all of them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and folder / "index" not in path.parents]
    files = [path for path in files if path.parent != folder / "index"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fail_with(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


FAILURES: dict[str, tuple[str, tuple[Any, str, Any]]] = {
    "memory": ("CUDA", (Objective, "training_step", fail_with(torch.OutOfMemoryError("CUDA")))),
    "Ctrl-C": ("1", (Objective, "training_step", fail_with(KeyboardInterrupt()))),  # the exit code of Lightning
    "SIGTERM": ("143", (Objective, "training_step", fail_with(SystemExit(143)))),
    "NaN": ("not finite", (Supervised, "compute_loss", spoil(0, float("nan")))),
    "callback": ("callback", (Throughput, "on_train_batch_start", fail_with(RuntimeError("callback")))),
    "validation": ("answers", (GenerationMetrics, "on_validation_epoch_end", fail_with(RuntimeError("answers")))),
    "disk": ("full", (CheckpointFolders, "_write", fail_with(OSError(28, "full")))),
    "bad samples": ("too many", (SampleCounter, "add_unplanned", fail_with(ValueError("too many")))),
    "weights": ("weights", (assembly, "write_weights", fail_with(OSError(28, "weights")))),
    "ledger": ("ledger", (stage, "write_summary", fail_with(RuntimeError("ledger")))),
    "marker": ("137", (Run, "finish", fail_with(SystemExit(137)))),
}


ALWAYS = ("Ctrl-C", "NaN", "validation", "disk", "weights", "marker")
"""One failure of each phase; the others are slow."""
MOMENTS = [failure if failure in ALWAYS else pytest.param(failure, marks=pytest.mark.slow) for failure in FAILURES]


@pytest.mark.parametrize("failure", MOMENTS)
def test_finished_run_survives_a_late_failure(
    failure: str, old: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_files(old.folder)
    text, target = FAILURES[failure]
    monkeypatch.setattr(*target)
    with pytest.raises((Exception, SystemExit)) as caught:
        fit(corpus, tmp_path, *SHORT, "recipe.checkpoint_every=1", f"validate_first={failure == 'validation'}")
    assert text in str(caught.value)
    assert digest_files(old.folder) == before
    assert not list(tmp_path.glob("nano/*.[0-9]*"))


@pytest.mark.parametrize(
    "mistake", ["recipe.lr=fast", "data.records=nowhere.json", "logger=wandb", "recipe.batch_size=few"]
)
def test_finished_run_survives_a_mistyped_command_which_leaves_nothing(
    mistake: str, old: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = digest_files(tmp_path)
    with pytest.raises(Exception, match=r"fast|nowhere\.json|wandb|few"):
        fit(corpus, tmp_path, *SHORT, mistake)
    after = digest_files(tmp_path)
    after.pop("nano/humanomni_stage1_face.lock", None)
    assert after == before


def test_run_beside_a_finished_one_resumes_and_takes_its_folder(
    old: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_files(old.folder)
    more = (*SHORT, "recipe.checkpoint_every=1")
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", fail_at_step(1))
        with pytest.raises(RuntimeError, match="power failure"):
            fit(corpus, tmp_path, *more)
    assert digest_files(old.folder) == before
    steps: list[int] = []
    with monkeypatch.context() as patch:
        training_step = Objective.training_step

        def count_step(self: Objective, *args: Any) -> Any:
            steps.append(self.trainer.global_step)
            return training_step(self, *args)

        patch.setattr(Objective, "training_step", count_step)
        run = fit(corpus, tmp_path, *more)
    assert steps == [1] and run.is_finished() and run.folder == old.folder
    assert digest_files(old.folder.with_name("humanomni_stage1_face.1")) == before
    assert not locate_attempt(run).folder.exists()
    overwritten = fit(corpus, tmp_path, *more, "overwrite=true")
    assert overwritten.is_finished() and overwritten.folder.with_name("humanomni_stage1_face.2").is_dir()
