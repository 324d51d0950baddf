"""Checks of the values of a command line: missing ones, types, paths, packages."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config
from omnihuman.config_files import find_example
from omnihuman.values import check_command_line, check_missing, check_packages, check_paths, check_types

FACE = "+experiment=humanomni_stage1_face"


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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("chain=no_chain", r"chain=no_chain: choose from true, false, same_data"),
        ("select=bests", r"select=bests: choose from last, best"),
        ("on_bad_loss=pause", r"on_bad_loss=pause: choose from stop, skip"),
        ("patience=few", r"patience=few: expected a number"),
        ("save_top_k=0", r"save_top_k=0: expected a number"),
        ("recipe.batch_size=0", r"recipe\.batch_size=0: expected a number"),
    ],
)
def test_a_value_that_training_cannot_have(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_command_line([FACE, text], compose_config([FACE, text]), "train")


def test_a_folder_that_is_created_need_not_exist() -> None:
    texts = [FACE, "data.root=nowhere"]
    check_command_line(texts, compose_config(texts), "train")


@pytest.mark.parametrize("verb", ["generate", "chat", "serve", "evaluate", "export", "convert", "sample"])
def test_every_missing_value_of_a_verb_has_an_example(verb: str) -> None:
    for key in OmegaConf.missing_keys(compose_config([], verb)):
        assert find_example(key, verb), f"conf/{verb}.yaml: an example has {key}="


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
        "recipe.activation_checkpointing=0.5",
        "recipe.activation_checkpointing=auto",
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


def test_a_logger_without_its_package_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose_config([FACE, "logger=[tensorboard,wandb]"])
    monkeypatch.setattr("omnihuman.values.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"logger=wandb: .*pip install wandb"):
        check_packages(config)
    check_packages(compose_config([FACE]))
