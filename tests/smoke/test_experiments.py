"""Every experiment fits its model and data, and those with faces take steps."""

from pathlib import Path

import pytest

from omnihuman.build import compose_config, config_dir
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage

from .test_generate import run as verb
from .test_train import column, overrides

EXPERIMENTS = sorted(path.stem for path in (Path(config_dir()) / "experiment").glob("*.yaml"))


def run(experiment: str, *given: str) -> Run:
    line = [f"+experiment={experiment}", *given]
    return run_stage(compose_config(line), line)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_can_be_rehearsed(experiment: str, corpus: Path, tmp_path: Path) -> None:
    run(experiment, *overrides(corpus, tmp_path), "dry_run=true")


@pytest.mark.parametrize("experiment", ["omni_emotion_stage3", "favchat_stage2"])
def test_the_papers_size_can_be_rehearsed(experiment: str, corpus: Path, tmp_path: Path) -> None:
    run(experiment, *overrides(corpus, tmp_path), "size=7b", "trainer=fsdp", "dry_run=true")


@pytest.mark.parametrize(
    ("experiment", "model"),
    [("omni_emotion_stage3", "omni_emotion"), ("favchat_stage2", "favchat"), ("favchat_stage2", "favchat_text")],
)
def test_stages_with_faces_train_and_answer(experiment: str, model: str, corpus: Path, tmp_path: Path) -> None:
    more = (f"model={model}", "init_from=[]", "trainer.max_steps=2", "stage.batch_size=4", "frames=2",
            "answers.limit=2", "trainer.limit_val_batches=1", "validate_first=true")  # fmt: skip
    trained = run(experiment, *overrides(corpus, tmp_path), *more)
    losses = column(trained)
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
    assert trained.weights.is_file() and column(trained, "val/loss")
    if model == "favchat":
        clip = min((corpus / "media").glob("train_talk*.mp4"))
        said = verb("generate", f"run={experiment}", f"runs={tmp_path}", f"video={clip}", "instruction=Who?",
                    "faces=whole", "merge_lora=true", "max_new_tokens=4")  # fmt: skip
        assert "answer:" in said and f"{experiment} reads no audio; answered without" in said
