"""Every experiment fits its model and data, and stages with faces train and answer."""

from pathlib import Path

import pytest

from omnihuman.build import compose_config, config_dir, has_model
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage

from .test_generate import run_verb
from .test_train import build_overrides, read_column, read_losses

EXPERIMENTS = sorted(path.stem for path in (Path(config_dir()) / "experiment").glob("*.yaml"))
LAST = ("humanomni_stage3", "omni_emotion_recognition", "favchat_stage3", "composition")
BY_SYSTEM = []
"""The last stage of every system; earlier ones in the slow tests."""
for name in filter(has_model, EXPERIMENTS):
    BY_SYSTEM.append(name if name in LAST else pytest.param(name, marks=pytest.mark.slow))


def run_experiment(experiment: str, *overrides: str) -> Run:
    arguments = [f"+experiment={experiment}", *overrides]
    return run_stage(compose_config(arguments), arguments)


@pytest.mark.parametrize("experiment", BY_SYSTEM)
def test_dry_run_of_every_experiment(experiment: str, corpus: Path, tmp_path: Path) -> None:
    run_experiment(experiment, *build_overrides(corpus, tmp_path), "dry_run=true")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["omni_emotion_stage3", "favchat_stage2"])
def test_dry_run_in_the_size_of_the_paper(experiment: str, corpus: Path, tmp_path: Path) -> None:
    run_experiment(experiment, *build_overrides(corpus, tmp_path), "size=7b", "trainer=fsdp", "dry_run=true")


@pytest.mark.parametrize(
    ("experiment", "model"),
    [
        pytest.param("omni_emotion_stage3", "omni_emotion", marks=pytest.mark.slow),
        ("favchat_stage2", "favchat"),
        pytest.param("favchat_stage2", "favchat_text", marks=pytest.mark.slow),
    ],
)
def test_stages_with_faces_train_and_answer(experiment: str, model: str, corpus: Path, tmp_path: Path) -> None:
    overrides = (
        f"model={model}",
        "init_from=[]",
        "data.features=null",
        "trainer.max_steps=2",
        "recipe.batch_size=4",
        "frames=2",
        "validation.limit=2",
        "trainer.limit_val_batches=1",
        "validate_first=true",
    )
    run = run_experiment(experiment, *build_overrides(corpus, tmp_path), *overrides)
    losses = read_losses(run)
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
    assert run.weights.is_file() and read_column(run, "val/loss")
    if model != "favchat":
        return
    clip = min((corpus / "media").glob("train_talk*.mp4"))
    output = run_verb(
        "generate",
        f"run={experiment}",
        f"runs={tmp_path}",
        f"video={clip}",
        "instruction=Who?",
        "faces=whole",
        "merge_lora=true",
        "max_new_tokens=4",
    )
    assert "answer:" in output and f"{experiment} reads no audio; answered without" in output
