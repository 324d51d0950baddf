"""From yaml to objects: allowed targets, dropped parts, sources of weights."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from omnihuman.build import (
    CachedFileSource,
    build,
    compose_config,
    compose_part,
    config_dir,
    prune,
    select_model_of_base,
)

METRIC = {"_target_": "omnihuman.metric.emotion.EmotionRecall"}


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    source, file = CachedFileSource("main", f"file://{tmp_path}"), tmp_path / "a.yaml"
    for value in (1, 22):
        file.write_text(f"x: {value}")
        for _ in range(4):
            config = source.load_config("a").config
            assert config.x == value
            config.x = 333


def test_plugins_of_hydra_can_be_registered_again() -> None:
    registry = SourcesRegistry.instance()
    registry.register(FileConfigSource)  # as submitit does in a job
    assert registry.resolve("file") is CachedFileSource


@pytest.mark.parametrize(
    "target", ["os.system", "torch.load", "omnihumanx.evil", "omnihuman.model.omni.torch.hub.load"]
)
def test_foreign_target_raises(tmp_path: Path, target: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match=rf"_target_ is '{target}'"):
        build({"_target_": target, "command": f"touch {marker}"})
    with pytest.raises(ValueError, match=rf"labels\._target_ is '{target}'"):
        build({**METRIC, "labels": [{"_target_": target}]})
    assert not marker.exists()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "omnihuman.projector.linear.LinearProjector", "width": 4}, "LinearProjector.*: width"),
        ({"_target_": "omnihuman.projector.linear.LinearProjector", "in_dim": 4}, "LinearProjector needs out_dim"),
        ({**METRIC, "_args_": [["a"]]}, "EmotionRecall: _args_"),
        ({**METRIC, "labels": "???"}, "labels is missing"),
        ({**METRIC, "_partial_": "yes"}, "_partial_ is 'yes'"),
        (
            {"_target_": "omnihuman.projector.linear.LinearProjector", "in_dim": -1, "out_dim": 4},
            "Projector: RuntimeError",
        ),
    ],
)
def test_invalid_arguments_raise(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(node)


def test_values_are_not_interpolated_twice() -> None:
    metric = build(OmegaConf.create({**METRIC, "labels": ["a", "\\${oc.env:HOME}"]}))
    assert metric.labels == ["a", "${oc.env:HOME}"]


def test_unknown_choice_raises_with_its_path() -> None:
    model = compose_config(["+experiment=omni_emotion_stage3", "model.fusions.newline.mode=lines"]).model
    with pytest.raises(ValueError, match=r"^fusions\.newline\.mode=lines: .*\bone, frame, grid, none\b"):
        build(model)
    projector = {"_target_": "omnihuman.projector.mlp.MLPProjector", "in_dim": 4, "out_dim": 4}
    with pytest.raises(ValueError, match=r"resize=half: .*\bceil_half\b"):
        build({**projector, "resize": "half"})
    assert build({**projector, "resize": None}) is not None


def test_containers_are_plain() -> None:
    metric = build(OmegaConf.create({**METRIC, "labels": ["a", "b"]}))
    assert type(metric.labels) is list


def test_dropped_projector_has_no_source() -> None:
    part = {"_target_": "omnihuman.projector.linear.LinearProjector"}
    node = prune(
        {"drop": ["projectors.a"], "projectors": {"a": part, "b": part}, "projector_inputs": {"a": "v", "b": "v"}}
    )
    assert node == {"projectors": {"b": part}, "projector_inputs": {"b": "v"}}


def test_unknown_part_in_drop_raises() -> None:
    with pytest.raises(ValueError, match=r"'projectors\.c'.*'projectors' .*\['a'\]"):
        prune({"drop": ["projectors.c"], "projectors": {"a": {"_target_": "omnihuman.x"}}})


def test_deselected_part_is_pruned() -> None:
    config = compose_config(["+experiment=humanomni_stage3", "~fusion@model.fusions.compress"])
    assert "inputs" in config.model.fusions.compress  # Hydra leaves the wiring
    plain: Any = OmegaConf.to_container(config.model, resolve=True)
    assert list(prune(plain)["fusions"]) == ["gate"]


@pytest.mark.parametrize("preset", ["siglip", "siglip_levels"])
def test_one_part_has_another_size(preset: str) -> None:
    plain = compose_config([f"encoder@model.encoders.video={preset}"])
    for size, side in (("nano", 112), ("0_5b", 224), ("7b", 384)):
        overrides = [f"encoder@model.encoders.video={preset}", f"encoder/siglip@model.encoders.video={size}"]
        config = compose_config(overrides)
        assert config.model.encoders.video.image_size == side
        config.model.encoders.video = plain.model.encoders.video
        assert config == plain


def test_parts_extend_presets_of_the_same_size() -> None:
    for size, lr, epochs in (("nano", 1e-3, 1), ("0_5b", 1e-5, 3), ("7b", 1e-5, 3)):
        recipe = compose_part("recipe", "instruct", size=size)
        assert (recipe.lr, recipe.max_epochs, recipe.batch_size) == (lr, epochs, 16 if size == "nano" else 128)
    assert compose_part("projector", "stc_videollama2").depth == 4  # VideoLLaMA2's has one size
    assert "sliding_window" not in compose_part("llm", "causal_mistral", size="0_5b").architecture


@pytest.mark.parametrize(
    ("override", "cure"),
    [
        ("encoder/siglip@model.encoders.video=8b", r"=8b: .*\b0_5b, 7b, nano\b"),
        ("encoder@model.encoders.video=siglip/nano", r"siglip/nano: .*encoder/siglip@model\.encoders\.video="),
    ],
)
def test_unknown_size_of_a_part_raises(override: str, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        compose_config([override])


def test_random_weights_need_no_hub() -> None:
    model = compose_config(["+experiment=humanomni_stage3", "size=7b"]).model
    assert model.encoders.video.weights == "google/siglip-so400m-patch14-384"
    assert model.llm.tokenizer == "Qwen/Qwen2.5-7B-Instruct"
    random = compose_config(["+experiment=humanomni_stage3", "size=7b", "random_weights=true"]).model
    assert random.encoders.video.weights is None and random.llm.weights is None
    assert Path(random.llm.tokenizer).is_dir()  # text needs a tokenizer all the same


def test_unknown_foundation_weights_raise() -> None:
    with pytest.raises(Exception, match=r"foundation weights .*'umt9'"):
        build(OmegaConf.create({**METRIC, "labels": "${foundation:umt9}"}))


def test_configs_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (Path(config_dir()) / "train.yaml").is_file()
    assert compose_config(["+experiment=humanomni_stage2"]).name == "humanomni_stage2"


@pytest.mark.parametrize(
    "overrides",
    [
        ["+experiment=favchat_stage2", "seed=3", "model.drop=[encoders.face]", "frames=4"],
        ["+experiment=humanomni_stage3", "size=7b", "+trainable={a: 1e-3}", "+trainer.profiler=simple"],
        ["+experiment=omni_emotion_stage3", "fusion@model.fusions.join=frame_concat", "++model.llm.lora={r: 4}"],
        ["+experiment=humanomni_stage1", "~validate_first", "data.root='a,b'", "recipe=align", "recipe.lr=2e-4"],
    ],
)
def test_composition_in_two_steps_equals_that_of_hydra(overrides: list[str]) -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        expected = compose("train", overrides=overrides)
    assert compose_config(overrides) == expected


@pytest.mark.parametrize("override", ["sed=3", "+seed=3", "~sed", "model.fusion@x=y"])
def test_invalid_values_raise_as_in_hydra(override: str) -> None:
    with pytest.raises(ConfigCompositionException):
        compose_config(["+experiment=humanomni_stage1", override])


def write_base(folder: Path, model: str, size: str) -> str:
    folder.mkdir()
    OmegaConf.save(OmegaConf.create({"size": size, "model": {"variant": model}}), folder / "config.yaml")
    return str(folder)


def test_finetune_composes_the_model_and_the_size_of_its_base(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "omni_emotion", "7b")
    config = compose_config(["+experiment=finetune", f"base={base}", "fusion@model.fusions.join=frame_attend"])
    assert (config.size, config.model.variant) == ("7b", "omni_emotion")
    assert "FrameAttend" in config.model.fusions.join._target_
    assert compose_config(["+experiment=finetune", f"base={base}", "size=nano"]).size == "nano"
    arguments = ["-m", "+experiment=humanomni_stage3", f"base={base}"]
    assert select_model_of_base(arguments) == [*arguments, "size=7b"], "an experiment with a model of its own"


def test_bases_of_several_models_raise(tmp_path: Path) -> None:
    first, second = write_base(tmp_path / "a", "favchat", "7b"), write_base(tmp_path / "b", "humanomni", "7b")
    with pytest.raises(ValueError, match="each"):
        select_model_of_base(["-m", "+experiment=finetune", f"base={first},{second}"])
    OmegaConf.save(OmegaConf.create({"model": {}}), tmp_path / "b" / "config.yaml")
    with pytest.raises(ValueError, match="add model="):
        select_model_of_base(["+experiment=finetune", f"base={second}"])
