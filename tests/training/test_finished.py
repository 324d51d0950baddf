"""A run is finished once its marker is there: after a kill before it, the same command completes the run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.objective.base import Objective
from omnihuman.training import assembly, stage, summary
from omnihuman.training.generation_metrics import GenerationMetrics
from omnihuman.training.runs import Run
from tests.smoke.test_train import build_overrides, read_ledger, train

MORE = ("recipe.max_epochs=1", "recipe.checkpoint_every=2", "logger=csv", "callback=ema", "data.val_limit=4")
SAME = ("steps", "planned", "trained", "skipped", "order")


class KilledError(Exception):
    """Stands for the end of the process."""


def kill(*args: Any, **kwargs: Any) -> None:
    raise KilledError


def kill_within_ledger(rows: Any, file: Path, title: str) -> None:
    (file.parent / "ledger.json").write_text('{"exper')
    raise KilledError


KILLS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "validation": (GenerationMetrics, "on_validation_epoch_end", kill),
    "before the weights": (assembly, "write_weights", kill),
    "before the ledger": (stage, "write_summary", kill),
    "within the ledger": (summary, "draw_curves", kill_within_ledger),
    "before the marker": (Run, "finish", kill),
}


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(corpus, tmp_path_factory.mktemp("uninterrupted"), *MORE)


FIRST_AND_LAST = ("validation", "before the marker")
MOMENTS = [moment if moment in FIRST_AND_LAST else pytest.param(moment, marks=pytest.mark.slow) for moment in KILLS]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_is_completed_without_another_step(
    moment: str, uninterrupted: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*KILLS[moment])
        with pytest.raises(KilledError):
            train(corpus, tmp_path, *MORE)
    folder = tmp_path / "nano" / "humanomni_stage1_face"
    killed = Run(folder, uninterrupted.digest, uninterrupted.chain_digest)
    assert not killed.is_finished() and not killed.can_be_parent() and killed.loss is None
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "training_step", lambda *args: pytest.fail("trained again"))
        run = train(corpus, tmp_path, *MORE)
    assert run.is_finished() and run.loss == pytest.approx(uninterrupted.loss, abs=1e-6)
    assert run.weights.read_bytes() == uninterrupted.weights.read_bytes()
    ledger, expected = read_ledger(run), read_ledger(uninterrupted)
    assert {key: ledger[key] for key in SAME} == {key: expected[key] for key in SAME}
    assert (folder / "curves.png").is_file()


SCRIPT = """
import os, signal, sys
from omnihuman.training import stage
from omnihuman.train import main

stage.write_summary = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_process_killed_between_weights_and_ledger(uninterrupted: Run, corpus: Path, tmp_path: Path) -> None:
    overrides = ["+experiment=humanomni_stage1_face", *build_overrides(corpus, tmp_path, *MORE)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *overrides], env=environment, cwd=tmp_path, check=False, timeout=300
    )
    folder = tmp_path / "nano" / "humanomni_stage1_face"
    assert process.returncode == -signal.SIGKILL
    assert (folder / "weights.safetensors").is_file() and not (folder / "finished").exists()
    run = train(corpus, tmp_path, *MORE)
    assert run.is_finished() and run.weights.read_bytes() == uninterrupted.weights.read_bytes()
