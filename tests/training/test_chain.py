"""Stages by name: parents, folders, digests; nothing is trained here (tests/smoke does that)."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config
from omnihuman.training.chain import Link, in_sweep, link, train_missing
from omnihuman.training.runs import Run, run_of, shared_overrides


def chain(*overrides: str) -> Link:
    given = ["+experiment=humanomni_stage3", *overrides]
    return link(compose_config(given), given)


def test_stage_3_starts_from_stage_1_and_2_and_stage_1_from_its_branches() -> None:
    found = chain()
    assert [parent.run.folder.as_posix() for parent in found.parents] == [
        "runs/nano/humanomni_stage1",
        "runs/nano/humanomni_stage2",
    ]
    branches = [parent.run.folder.name for parent in found.parents[0].parents]
    assert branches == ["humanomni_stage1_face", "humanomni_stage1_body", "humanomni_stage1_interaction"]
    assert found.parents[1].command == ["python", "-m", "omnihuman.train", "+experiment=humanomni_stage2"]


def test_what_decides_a_parent_decides_its_child() -> None:
    assert chain().run.digest == chain().run.digest
    assert chain("seed=1").run.digest != chain().run.digest
    assert chain("seed=1").parents[0].run.digest != chain().parents[0].run.digest
    assert chain("stage.lr=0.1").parents[0].run.digest == chain().parents[0].run.digest
    assert chain("stage.lr=0.1").run.digest != chain().run.digest


def test_other_foundation_weights_make_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = chain().run.digest
    monkeypatch.setattr("omnihuman.training.runs._content", lambda folder: f"other {Path(folder).name}")
    assert chain().run.digest != before


def test_how_fast_a_run_is_decides_nothing() -> None:
    assert chain("data.num_workers=3", "trainer.devices=2", "runs=elsewhere").run.digest == chain().run.digest


def test_a_part_that_a_parent_does_without_does_not_move_the_parent() -> None:
    visual, auditory = chain("projector@model.projectors.audio=linear").parents
    assert visual.run == chain().parents[0].run
    assert auditory.run.folder == chain().parents[1].run.folder
    assert auditory.run.recipe != chain().parents[1].run.recipe


def test_in_a_sweep_parents_that_differ_have_folders_of_their_own() -> None:
    visual, auditory = chain("projector@model.projectors.audio=linear", "variant=cell").parents
    assert visual.run == chain().parents[0].run
    assert auditory.run.folder.as_posix() == "runs/nano/humanomni_stage2/projector@model.projectors.audio=linear"
    assert link(compose_config(auditory.overrides), auditory.overrides).run == auditory.run  # what its command makes


def test_each_stage_may_have_its_own_data_files() -> None:
    """A parent trained on other files is a parent; a run whose own files changed is another run."""
    mine = ("data=jsonl", "data.records=b.json", "data.root=m")
    first = link(
        compose_config(["+experiment=humanomni_stage2", "data=jsonl", "data.records=a.json", "data.root=m"]), []
    )
    asked = chain(*mine).parents[1].run
    assert (asked.folder, asked.recipe) == (first.run.folder, first.run.recipe) and asked.digest != first.run.digest


def test_which_overrides_parents_share() -> None:
    given = ["+experiment=x", "size=7b", "trainer=fsdp", "trainer.max_steps=2", "stage.lr=1", "data.root=m", "seed=3",
             "projector@model.projectors.face=mlp", "~model.fusions.compress", "optimizer=adamw"]  # fmt: skip
    assert shared_overrides(given) == ["size=7b", "trainer=fsdp", "data.root=m", "seed=3",
                                       "projector@model.projectors.face=mlp", "~model.fusions.compress"]  # fmt: skip


def test_without_chain_a_missing_parent_is_an_error_with_its_command(tmp_path: Path) -> None:
    parents = chain(f"runs={tmp_path}").parents
    with pytest.raises(ValueError, match=r"chain=false.*\+experiment=humanomni_stage1"):
        train_missing(parents, allowed=False)


def test_an_experiment_that_does_not_exist_is_named() -> None:
    with pytest.raises(Exception, match="humanomni_stage9"):
        compose_config(["+experiment=humanomni_stage9"])


def test_another_config_in_a_runs_folder_moves_aside(tmp_path: Path) -> None:
    config = OmegaConf.create({"name": "x"})
    old, new = Run(tmp_path / "x", "aaa", "r"), Run(tmp_path / "x", "bbb", "r")
    old.open(config)
    old.weights.write_bytes(b"1")
    assert old.finished() and not new.finished() and new.can_be_parent()
    new.open(config)
    assert (tmp_path / "x.1" / "weights.safetensors").read_bytes() == b"1"
    assert not new.weights.exists() and new.recorded() == "bbb"
    new.open(config)  # opened again, as after an interruption: nothing moves
    assert not (tmp_path / "x.2").exists()


def test_the_newest_checkpoint_of_an_interrupted_run_is_found(tmp_path: Path) -> None:
    run = Run(tmp_path / "x", "aaa")
    assert run.checkpoint() is None
    run.open(OmegaConf.create({}))
    for step in (9, 100, 20):
        (run.checkpoints / f"step={step}.ckpt").touch()
    assert run.checkpoint() == run.checkpoints / "step=100.ckpt"
    assert Run(run.folder, "bbb").checkpoint() is None
    run.weights.touch()
    assert run.checkpoint() is None


@pytest.mark.parametrize("size", ["nano", "0_5b", "7b"])
@pytest.mark.parametrize(
    "experiment", ["stage1_face", "stage1_body", "stage1_interaction", "stage1", "stage2", "stage3"]
)
def test_every_experiment_composes_at_every_size(experiment: str, size: str) -> None:
    config = compose_config([f"+experiment=humanomni_{experiment}", f"size={size}"])
    assert run_of(config).folder.as_posix() == f"runs/{size}/humanomni_{experiment}"
    assert config.trainer.max_epochs == config.stage.max_epochs
    if size != "nano":
        aligns = experiment not in ("stage1", "stage3")
        assert (config.stage.lr, config.stage.batch_size) == ((1e-3, 256) if aligns else (2e-5, 128))
        assert config.stage.max_epochs == 1 and config.stage.warmup == 0.03


def test_what_moves_aside_leaves_the_cells_of_a_sweep_where_they_are(tmp_path: Path) -> None:
    config = OmegaConf.create({"a": 1})
    Run(tmp_path / "x", "first").open(config)
    Run(tmp_path / "x" / "cell", "other").open(config)
    (tmp_path / "x" / "cell.lock").touch()
    Run(tmp_path / "x", "second").open(config)
    assert (tmp_path / "x" / "cell" / "digest").read_text().startswith("other")
    assert (tmp_path / "x" / "cell.lock").exists() and not (tmp_path / "x.1" / "cell").exists()
    assert (tmp_path / "x.1" / "digest").read_text().startswith("first")


def test_parents_are_named_by_the_overrides_that_they_depend_on() -> None:
    cells = {
        fusion: in_sweep("omni_emotion_stage3", ["frames=4", f"fusion@model.fusions.join={fusion}"], fusion)
        for fusion in ("frame_concat", "frame_attend")
    }
    folders = {fusion: [parent.run.folder.name for parent in cell.parents] for fusion, cell in cells.items()}
    video, sound, face = zip(*folders.values(), strict=True)  # only the face's projector is trained with the fusion
    assert set(video) == set(sound) == {"frames=4"}
    assert face == (
        "frames=4,fusion@model.fusions.join=frame_concat",
        "frames=4,fusion@model.fusions.join=frame_attend",
    )


def test_what_decides_the_result_shows_in_the_name_of_a_sweeps_folder() -> None:
    def folder(*overrides: str) -> str:
        return in_sweep("humanomni_stage1_face", overrides).run.folder.name

    assert folder("trainer=ddp", "trainer.devices=2", "seed=42", "data.val_limit=8") == "humanomni_stage1_face"
    assert folder("trainer=ddp", "seed=43") == "seed=43"
    assert folder("trainer.max_steps=5") == "trainer.max_steps=5"
    files = ["data=jsonl", "data.records=a.json", "data.root=media"]
    assert set(files) < set(in_sweep("humanomni_stage1_face", [*files, "frames=4"]).overrides)
