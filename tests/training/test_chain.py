"""Chains of runs: parents, folders, digests. Nothing is trained here; tests/smoke does that."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config
from omnihuman.training.chain import Chain, open_cell, resolve_chain, resolve_variant, train_missing
from omnihuman.training.runs import Run, build_run, select_shared
from tests.training.test_checkpoint import write_text

STAGES = ("stage1_face", "stage1_body", "stage1_interaction", "stage1", "stage2", "stage3")


def resolve(*overrides: str, experiment: str = "humanomni_stage3") -> Chain:
    command_line = [f"+experiment={experiment}", *overrides]
    return resolve_chain(compose_config(command_line), command_line)


def test_stage_3_starts_from_stage_1_and_2_and_stage_1_from_its_branches() -> None:
    chain = resolve()
    folders = [parent.run.folder.as_posix() for parent in chain.parents]
    assert folders == ["runs/nano/humanomni_stage1", "runs/nano/humanomni_stage2"]
    branches = [parent.run.folder.name for parent in chain.parents[0].parents]
    assert branches == ["humanomni_stage1_face", "humanomni_stage1_body", "humanomni_stage1_interaction"]
    assert chain.parents[1].command == ["python", "-m", "omnihuman.train", "+experiment=humanomni_stage2"]


def test_digest_depends_on_shared_overrides_of_all_stages() -> None:
    plain, seeded, faster = resolve(), resolve("seed=1"), resolve("recipe.lr=0.1")
    assert resolve().run.digest == plain.run.digest
    assert seeded.run.digest != plain.run.digest
    assert seeded.parents[0].run.digest != plain.parents[0].run.digest
    assert faster.run.digest != plain.run.digest
    assert faster.parents[0].run.digest == plain.parents[0].run.digest


def test_digest_depends_on_the_content_of_foundation_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = resolve().run.digest
    monkeypatch.setattr("omnihuman.training.runs._hash_folder", lambda folder: f"other {Path(folder).name}")
    assert resolve().run.digest != digest


def test_digest_does_not_depend_on_speed() -> None:
    faster = resolve("data.num_workers=3", "trainer.devices=2", "runs=elsewhere")
    assert faster.run.digest == resolve().run.digest


def test_parents_may_have_another_seed() -> None:
    chain = resolve("seed=1", "parent_seed=42")
    assert chain.run.digest != resolve().run.digest
    assert [parent.run for parent in chain.parents] == [parent.run for parent in resolve().parents]


def test_a_cell_of_a_sweep_has_the_folder_of_what_was_swept(tmp_path: Path) -> None:
    overrides = ["+experiment=humanomni_stage1_face", f"runs={tmp_path}", "recipe.lr=0.1", "seed=1"]
    config, command_line = open_cell(compose_config(overrides), overrides, {"seed": "1,2"})
    run = resolve_chain(config, command_line).run
    assert run.folder == tmp_path / "nano" / "humanomni_stage1_face" / "seed=1"
    assert resolve_chain(compose_config(command_line), command_line).run == run
    run.open(config)
    other = [*overrides[:2], "recipe.lr=0.2", "seed=1"]
    open_cell(compose_config(other), other, {"seed": "1,2"})  # nothing was trained there yet
    run.weights.touch()
    run.finish()
    open_cell(compose_config(overrides), overrides, {"seed": "1,2"})  # the same run
    with pytest.raises(ValueError, match=r"seed=1 holds another run.*variant=.*overwrite=true"):
        open_cell(compose_config(other), other, {"seed": "1,2"})
    for extra, name in (("overwrite=true", "seed=1"), ("variant=slow", "slow,seed=1")):
        config, _ = open_cell(compose_config([*other, extra]), [*other, extra], {"seed": "1,2"})
        assert config.variant == name


def test_override_of_a_dropped_part_does_not_change_a_parent() -> None:
    visual, auditory = resolve("projector@model.projectors.audio=linear").parents
    plain_visual, plain_auditory = resolve().parents
    assert visual.run == plain_visual.run
    assert auditory.run.folder == plain_auditory.run.folder
    assert auditory.run.chain_digest != plain_auditory.run.chain_digest


def test_parents_of_a_sweep_have_folders_of_their_own() -> None:
    visual, auditory = resolve("projector@model.projectors.audio=linear", "variant=cell").parents
    assert visual.run == resolve().parents[0].run
    assert auditory.run.folder.as_posix() == "runs/nano/humanomni_stage2/projector@model.projectors.audio=linear"
    assert resolve_chain(compose_config(auditory.overrides), auditory.overrides).run == auditory.run


def test_dropped_part_is_dropped_from_the_parents() -> None:
    drop = "model.drop=[encoders.instruction,fusions.gate]"
    for override in (drop, f"++{drop}"):
        visual, auditory = resolve(override).parents
        assert visual.overrides[-1] == "model.drop=[encoders.audio,projectors.audio,encoders.instruction,fusions.gate]"
        assert not any("model.drop" in override for override in auditory.overrides)


def test_parent_may_have_other_data_files() -> None:
    first = resolve("data=json", "data.records=a.json", "data.root=m", experiment="humanomni_stage2").run
    parent = resolve("data=json", "data.records=b.json", "data.root=m").parents[1].run
    assert (parent.folder, parent.chain_digest) == (first.folder, first.chain_digest) and parent.digest != first.digest


def test_overrides_of_parts_and_data_are_shared_with_parents() -> None:
    shared = [
        "size=7b",
        "trainer=fsdp",
        "data.root=m",
        "seed=3",
        "projector@model.projectors.face=mlp",
        "~model.fusions.compress",
    ]
    private = ["+experiment=x", "trainer.max_steps=2", "+trainer.max_time=1", "recipe.lr=1", "optimizer=adamw"]
    assert select_shared([*private, *shared]) == shared


def test_missing_parent_raises_with_its_command(tmp_path: Path) -> None:
    parents = resolve(f"runs={tmp_path}").parents
    with pytest.raises(ValueError, match=r"chain=false.*\+experiment=humanomni_stage1"):
        train_missing(parents, is_allowed=False)


def test_unknown_experiment_raises() -> None:
    with pytest.raises(Exception, match="humanomni_stage9"):
        compose_config(["+experiment=humanomni_stage9"])


def test_weights_alone_are_no_finished_run(tmp_path: Path) -> None:
    old, new = Run(tmp_path / "x", "aaa", "r"), Run(tmp_path / "x", "bbb", "r")
    old.open(OmegaConf.create({"name": "x"}))
    old.weights.write_bytes(b"1")
    assert not old.is_finished() and not new.can_be_parent()
    old.finish()
    assert old.is_finished() and not new.is_finished() and new.can_be_parent()


def test_newest_checkpoint_of_an_interrupted_run_is_found(tmp_path: Path) -> None:
    run = Run(tmp_path / "x", "aaa")
    assert run.find_checkpoint() is None
    run.open(OmegaConf.create({}))
    for step in (9, 100, 20):
        write_text(run.checkpoints / f"step={step}.ckpt", '{"run": "aaa"}')
    assert run.find_checkpoint() == run.checkpoints / "step=100.ckpt"
    assert Run(run.folder, "bbb").find_checkpoint() is None
    run.weights.touch()
    assert run.find_checkpoint() is not None
    run.finish()
    assert run.find_checkpoint() is None


@pytest.mark.parametrize("size", ["nano", "0_5b", "7b"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_experiment_composes_at_every_size(stage: str, size: str) -> None:
    config = compose_config([f"+experiment=humanomni_{stage}", f"size={size}"])
    assert build_run(config).folder.as_posix() == f"runs/{size}/humanomni_{stage}"
    assert config.trainer.max_epochs == config.recipe.max_epochs
    if size == "nano":
        return
    aligns = stage not in ("stage1", "stage3")
    assert (config.recipe.lr, config.recipe.batch_size) == ((1e-3, 256) if aligns else (2e-5, 128))
    assert config.recipe.max_epochs == 1 and config.recipe.warmup == 0.03


def resolve_folder(*overrides: str) -> str:
    return resolve_variant("humanomni_stage1_face", overrides).run.folder.name


def test_folder_of_a_parent_is_named_after_relevant_overrides() -> None:
    folders = []
    for fusion in ("frame_concat", "frame_attend"):
        overrides = ["frames=4", f"fusion@model.fusions.join={fusion}"]
        chain = resolve_variant("omni_emotion_stage3", overrides, fusion)
        folders.append([parent.run.folder.name for parent in chain.parents])
    # the stages of the video and audio projectors drop the fusion, the stage of the face projector trains with it
    assert folders == [
        ["frames=4", "frames=4", "frames=4,fusion@model.fusions.join=frame_concat"],
        ["frames=4", "frames=4", "frames=4,fusion@model.fusions.join=frame_attend"],
    ]


def test_folder_of_a_sweep_is_named_after_overrides_that_change_the_result() -> None:
    plain = ("trainer=ddp", "trainer.devices=2", "seed=42", "data.val_limit=8", "validation.limit=2")
    assert resolve_folder(*plain) == "humanomni_stage1_face"
    assert resolve_folder("trainer=ddp", "seed=43") == "seed=43"
    assert resolve_folder("trainer.max_steps=5") == "trainer.max_steps=5"
    assert resolve_folder("++trainer.max_steps=5", "+trainer.profiler=simple") == "trainer.max_steps=5"


def test_long_folder_name_is_cut_and_hashed() -> None:
    name = resolve_folder(f"data.separator='{'x' * 200}'")
    assert name.startswith("data.separator=xxx") and len(name) == 109


def test_variant_keeps_the_names_of_data_files() -> None:
    files = ["data=json", "data.records=a.json", "data.root=media"]
    assert set(files) < set(resolve_variant("humanomni_stage1_face", [*files, "frames=4"]).overrides)


def test_a_parent_that_fails_is_named_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = "import sys; print('one', file=sys.stderr); sys.exit('error: no media')"
    monkeypatch.setattr(Chain, "command", ["python", "-c", code])
    chain = Chain(Run(tmp_path / "face", "a", "b"), (), ())
    with pytest.raises(ValueError, match=r"parent face failed: no media; .*python -c"):
        train_missing([chain])
    assert capfd.readouterr().err == "one\nerror: no media\n"
