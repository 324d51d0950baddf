"""Checks of a command line: keys without a reader, missing values, paths; and what must pass."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config
from omnihuman.config_files import find_example
from omnihuman.keys import check_command_line, check_keys, check_missing, check_paths, check_types, suggest

FACE = "+experiment=humanomni_stage1_face"


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("+recipe.learning_rate=1e-3", r"recipe\.lr\?"),
        ("++recipe.learning_rate=1e-3", r"recipe\.lr\?"),
        ("+learning_rate=1e-3", r"recipe\.lr\?"),
        ("+validation.view=[V]", r"validation\.views\?"),
        ("+trainer.fast_dev_rnu=true", r"trainer\.fast_dev_run\?"),
        ("+trainer.logger=false", "logger=csv"),
        ("+trainer.accumulate_grad_batches=4", r"recipe\.batch_size"),
        ("+optimizer.lr=1e-3", r"recipe\.lr"),
        ("+optimizer.weight_dekay=0", r"AdamW .*optimizer\.weight_decay\?"),
        ("+model.projectors.face.depht=4", r"MLPProjector .*face\.depth\?"),
        ("+model.projectors.face.in_dim=4", "MLPProjector has no option in_dim"),
        ("+model.projectors.fce.depth=4", r"model\.projectors\.face\?"),
        ("+model.projektors={}", r"OmniModel .*model\.projectors"),
        ("+projector@model.projektors.face=linear", r"OmniModel .*model\.projectors"),
        ("+data.recrds=a.json", r"data\.records"),
        ("+logger.wandb.offline=true", "logger=csv.* or wandb first"),
        ("+callback.mine.patience=3", r"callback\.mine\._target_"),
        ("~recipe.lr", r"recipe\.lr=\.\.\."),
        ("~trainer.max_steps", r"trainer\.max_steps=\.\.\."),
    ],
)
def test_a_key_without_a_reader_raises(argument: str, cure: str) -> None:
    texts = [FACE, argument]
    with pytest.raises(ValueError, match=cure) as error:
        check_keys(texts, compose_config(texts), "train")
    assert str(error.value).startswith(f"{argument}: ")


@pytest.mark.parametrize(
    "argument",
    [
        "recipe.lr=1",
        "++recipe.lr=1",
        "+trainer.fast_dev_run=true",
        "+model.llm.lora.r=8",
        "+model.reads.video=faces",
        "+optimizer.fused=true",
        "+callback.mine={_target_: lightning.pytorch.callbacks.Timer}",
        "+metric@validation.metrics.face=choice",
        "+projector@model.projectors.more=linear",
        "~model.projectors.face.depth",
    ],
)
def test_a_key_with_a_reader_passes(argument: str) -> None:
    texts = [FACE, argument]
    check_keys(texts, compose_config(texts), "train")


@pytest.mark.parametrize(
    ("verb", "argument"),
    [("generate", "frames=4"), ("chat", "data.features=null"), ("report", "benchmark.root=media")],
)
def test_a_value_that_a_verb_does_not_read_raises(verb: str, argument: str) -> None:
    texts = ["run=x", *(["benchmark=dfew"] if verb == "report" else []), argument]
    with pytest.raises(ValueError, match=f"{argument}: omnihuman {verb} .*--help"):
        check_keys(texts, compose_config(texts, verb), verb)


def test_a_key_that_another_one_refers_to_has_a_reader() -> None:
    texts = [FACE, "+my_rate=1e-3", "recipe.lr=${my_rate}"]
    check_keys(texts, compose_config(texts), "train")


def test_a_missing_value_has_an_example() -> None:
    with pytest.raises(ValueError, match=r"data\.records .*\(data\.root too\): add data\.records=train\.json"):
        check_missing(compose_config([FACE, "data=json"]), "train")


def test_a_value_that_is_not_read_may_be_missing() -> None:
    check_missing(compose_config(["run=x", "benchmark=dfew"], "report"), "report")
    detector = ["face@data.face=yunet", "data.face.detector.model=x"]
    texts = [FACE, *detector, "encoder@model.encoders.video=siglip", "model.encoders.audio.weights=???"]
    check_missing(compose_config(texts), "train")


def test_a_path_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.json").touch()
    texts = [FACE, "data=json", f"data.root={tmp_path}", f"data.records=[{tmp_path}/train.json,{tmp_path}/trian.json]"]
    with pytest.raises(ValueError, match=r"data\.records=.*trian\.json: .*did you mean .*/train\.json\?"):
        check_paths(texts, compose_config(texts), "train")
    with pytest.raises(ValueError, match=r"video=nowhere\.mp4: "):
        check_paths(["video=nowhere.mp4"], compose_config([], "generate"), "generate")


def test_a_folder_that_is_created_need_not_exist() -> None:
    texts = [FACE, "data.root=nowhere"]
    check_command_line(texts, compose_config(texts), "train")


@pytest.mark.parametrize("verb", ["generate", "chat", "serve", "evaluate", "export", "convert", "sample"])
def test_every_missing_value_of_a_verb_has_an_example(verb: str) -> None:
    for key in OmegaConf.missing_keys(compose_config([], verb)):
        assert find_example(key, verb), f"conf/{verb}.yaml: an example has {key}="


def test_suggestions() -> None:
    assert suggest("a.x", ["a.long", "a.wide"]) == "a has long and wide."
    assert suggest("x", ["a", "b.c"]) == "choose a or b."


@pytest.mark.parametrize(
    "argument",
    [
        "recipe.lr=1",
        "recipe.lr=1e-4",
        "overwrite=true",
        "data.views=[VA]",
        "data.features=null",
        "data.num_workers=null",
        "trainer.devices=auto",
        "trainer.precision=32",
        "data.records=[a.json,b.json]",
        "seed=${recipe.batch_size}",
        "recipe.lr=1e-3,1e-4",
        "+data.note=text",
        "~data.face",
        "size=7b",
        "trainable={a: 1}",
    ],
)
def test_values_of_the_right_type_pass(argument: str) -> None:
    check_types([FACE, argument], "train")
