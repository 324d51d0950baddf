"""The gate: what a config may build, what a config of somebody else may hold, and plain pickles."""

import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from omnihuman.build import compose_config, config_dir, register_resolvers
from omnihuman.gate import KINDS, check_config, find_target, load_pickle, read_config, resolve_foreign
from omnihuman.training.runs import build_run

REFUSED = [
    "os.system",
    "builtins.object",
    "builtins.eval",
    "torch.hub.load",
    "torch.optim.optimizer.torch.load",
    "torch.optim.Optimizer.load_state_dict",
    "omnihuman.model.omni.torch.hub.load",
    "omnihuman.build.partial",
    "omnihuman.encoder.siglip.torch",
    "omnihuman.encoder.siglip.SquareFrames",
    "omnihuman.encoder.siglip.Encoder",
    "omnihuman.encoder.siglip.SigLIP.from_pretrained",
    "omnihuman.encoder.nowhere.Encoder",
    "omnihuman.training.chain.train_missing",
    "omnihuman.training.runs.Run",
    "omnihuman.metric.emotion.Path",
    "omnihuman.data.face.Path",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.early_stopping.torch.load",
    "lightning.pytorch.loggers.os.system",
    "hydra.utils.get_method",
    "omnihumanx.evil",
    "omnihuman",
    "omnihuman.encoder..x",
    "",
    7,
    None,
    ["omnihuman.encoder.bert.Bert"],
]


@pytest.mark.parametrize("target", REFUSED)
def test_target_outside_the_list_raises(target: Any) -> None:
    with pytest.raises(ValueError, match=r"model\._target_ is"):
        find_target("model._target_", target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.LinearLR",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.loggers.CSVLogger",
        "omnihuman.training.callbacks.TrainableEMA",
        "omnihuman.data.face.YuNet",
    ],
)
def test_class_of_the_list_is_found(target: str) -> None:
    assert find_target("", target).__name__ == target.rpartition(".")[2]


def test_every_preset_passes() -> None:
    for file in Path(config_dir()).rglob("*.yaml"):
        text = file.read_text()
        for line in text.splitlines():
            target = line.partition("_target_: ")[2].strip()
            if target and find_spec(target.partition(".")[0]):  # packages of loggers need not be installed
                find_target(str(file), target)


LAST = {"humanomni_stage3", "omni_emotion_recognition", "favchat_stage3"}
EXPERIMENTS = {path.stem for path in (Path(config_dir()) / "experiment").glob("*.yaml")}


@pytest.mark.parametrize(
    "experiment", [*sorted(LAST), *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(EXPERIMENTS - LAST))]
)
def test_every_experiment_passes_as_a_stranger_wrote_it(experiment: str) -> None:
    config = compose_config([f"+experiment={experiment}", "face@data.face=yunet", "data.face.detector.model=x"])
    check_config(experiment, OmegaConf.to_container(config, resolve=True))


def test_places_are_of_their_kind() -> None:
    bert = {"_target_": "omnihuman.encoder.bert.Bert", "tokenizer": "x", "_partial_": True}
    check_config("x", {"model": {"encoders": {"a": bert}}})
    for place in ("llm", "encoder", "projectors"):
        with pytest.raises(ValueError, match=rf"x\.model\.{place}"):
            check_config("x", {"model": {place: bert if place != "projectors" else {"a": bert}}})
    assert len({(kind.place, kind.package) for kind in KINDS}) == len(KINDS)


NODE = "model: {encoders: {a: {_target_: omnihuman.encoder.bert.Bert, tokenizer: x, _partial_: true, %s}}}"
HOSTILE = {
    "a target": ("model: {llm: {_target_: omnihuman.model.omni.torch.hub.load}}", r"config\.model\.llm\._target_"),
    "a target that an interpolation makes": ("a: os.system\nmodel: {_target_: '${a}'}", r"model\._target_ is 'os\.sys"),
    "a nested target": (NODE % "weights: {_target_: os.system}", r"encoders\.a\.weights\._target_"),
    "a target in a list": ("data: {records: [{source: {_target_: os.system}}]}", r"records\.0\.source\._target_"),
    "a target at another place": ("x: {_target_: torch.optim.AdamW}", r"x\._target_ is 'torch\.optim\.AdamW'"),
    "positional arguments": (NODE % "_args_: [1]", "_args_"),
    "Hydra's conversion": (NODE % "_convert_: all", "_convert_"),
    "Hydra's recursion": (NODE % "_recursive_: false", "_recursive_"),
    "a partial that is no bool": ("model: {_target_: omnihuman.model.omni.OmniModel, _partial_: 1}", "_partial_ is 1"),
    "an unknown argument": (NODE % "hook: x", "hook"),
    "the environment": ("a: '${oc.env:HOME}'", r"a is .*oc\.env"),
    "the environment within a value": ("a: [{b: 'x ${oc.env:HOME} y'}]", r"a\.0\.b is .*oc\.env"),
    "the environment within a resolver": ("a: \"${hub:'${oc.env:HOME}'}\"", r"oc\.env"),
    "a name that is made of parts": ("b: env\na: '${oc.${b}:HOME}'", r"a is "),
    "decoding": ("a: ${oc.decode:'1'}", r"oc\.decode"),
    "a key of Hydra": ("a: ${hydra:runtime.cwd}", r"\$\{hydra:\}"),
    "an interpolation for later": ("a: '\\${oc.env:HOME}'", r"config\.a is "),
    "an interpolation that a resolver returns": ("a: \"${hub:'\\\\${oc.env:HOME}'}\"", "oc.env|config.a is"),
    "a tag of Python": ("a: !!python/object/apply:os.system [ls]", "python/object/apply:os.system"),
    "a path": ("a: !!python/object/apply:pathlib.PosixPath [/etc]", r"config\.a is PosixPath"),
    "bytes": ("a: !!binary aGk=", r"config\.a is b'hi'"),
    "a private key": ("a: {_x: 1}", "the key '_x'"),
    "a list": ("[1]", "no keys"),
    "broken yaml": ("a: [", "while parsing"),
    "a broken interpolation": ("a: '${b'", "no viable alternative"),
    "a cycle": ("a: ${b}\nb: ${a}", "recursion|Recursive"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_config_raises_one_line_with_its_file(case: str, tmp_path: Path) -> None:
    register_resolvers()
    text, message = HOSTILE[case]
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_config(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_own_keys_and_weights_are_resolved(tmp_path: Path) -> None:
    register_resolvers()
    file = tmp_path / "config.yaml"
    file.write_text(
        "a: {b: '${c}'}\nc: 3\nd: ${folder}/x\nfolder: null\ne: ${hub:net}\nf: ${oc.select:no,true}\ng: ???"
    )
    config = read_config(file, tmp_path)
    assert OmegaConf.to_container(config) == {
        "a": {"b": 3},
        "c": 3,
        "d": f"{tmp_path}/x",
        "folder": str(tmp_path),
        "e": "net",
        "f": True,
        "g": "???",
    }


def test_values_of_the_environment_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA", "/clips")
    overrides = ["+experiment=humanomni_stage1", f"runs={tmp_path}", "data.root=${oc.env:MEDIA}/a", "data.views=[VF]"]
    config = compose_config([*overrides, "data.val_limit=${oc.decode:'2'}"])
    run = build_run(config)
    run.open(config)
    text = run.folder.joinpath("config.yaml").read_text()
    assert "oc.env" not in text and "root: /clips/a\n" in text and "val_limit: 2\n" in text
    assert "${foundation:" in text and "${recipe.batch_size}" in text
    assert config.data.root == "/clips/a" and "oc.env" in str(OmegaConf.to_container(config))
    assert read_config(run.folder / "config.yaml", run.folder).data.root == "/clips/a"
    listed = OmegaConf.create({"a": ["${oc.env:MEDIA}", "${b}"], "b": None})
    assert OmegaConf.to_container(resolve_foreign(listed)) == {"a": ["/clips", "${b}"], "b": None}


class Touch:
    """A pickle that would run code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("has_zip", [True, False])
def test_pickle_with_code_raises(tmp_path: Path, has_zip: bool) -> None:
    marker, file = tmp_path / "marker", tmp_path / "model.bin"
    if has_zip:
        torch.save({"loops": Touch(marker)}, file)
    else:
        file.write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(ValueError, match=r"model\.bin .*torch\.save"):
        load_pickle(file, mmap=True)
    assert not marker.exists()
