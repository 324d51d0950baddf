"""From yaml to objects: what may be built, what is dropped, where weights come from."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.build import build, compose_config, config_dir, prune


def test_only_the_projects_own_and_torchs_optimizers_may_be_built(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for target in ("os.system", "builtins.eval", "subprocess.run", "torch.load", "omnihumanx.evil"):
        with pytest.raises(ValueError, match="not allowed"):
            build({"_target_": target, "command": f"touch {mark}"})
        with pytest.raises(ValueError, match="not allowed"):
            build({"_target_": "omnihuman.metric.emotion.EmotionRecall", "labels": [{"_target_": target}]})
    assert not mark.exists()


def test_a_word_that_an_option_does_not_know_is_named_with_its_place() -> None:
    model = compose_config(["+experiment=omni_emotion_stage3", "model.fusions.newline.mode=lines"]).model
    with pytest.raises(ValueError, match=r"^fusions\.newline\.mode=lines: choose from one, frame, grid, none\.$"):
        build(model)
    half = {"_target_": "omnihuman.projector.mlp.MLPProjector", "in_dim": 4, "out_dim": 4, "resize": "half"}
    with pytest.raises(ValueError, match="resize=half: choose from ceil_half"):
        build(half)
    assert build(half | {"resize": None}) is not None


def test_containers_arrive_as_plain_ones() -> None:
    metric = build(OmegaConf.create({"_target_": "omnihuman.metric.emotion.EmotionRecall", "labels": ["a", "b"]}))
    assert type(metric.labels) is list


def test_a_dropped_projector_takes_its_source_along() -> None:
    part = {"_target_": "omnihuman.projector.linear.LinearProjector"}
    node = prune({"drop": ["projectors.a"], "projectors": {"a": part, "b": part}, "sources": {"a": "v", "b": "v"}})
    assert node == {"projectors": {"b": part}, "sources": {"b": "v"}}


def test_a_part_deselected_on_the_command_line_leaves_no_trace() -> None:
    config = compose_config(["+experiment=humanomni_stage3", "~fusion@model.fusions.compress"])
    assert "inputs" in config.model.fusions.compress  # Hydra keeps the wiring
    assert list(prune(OmegaConf.to_container(config.model, resolve=True))["fusions"]) == ["gate"]  # type: ignore[arg-type]


def test_hub_ids_become_null_where_weights_are_random() -> None:
    real = compose_config(["+experiment=humanomni_stage3", "size=7b"]).model
    assert real.encoders.video.weights == "google/siglip-so400m-patch14-384"
    assert real.llm.tokenizer == "Qwen/Qwen2.5-7B-Instruct"
    random = compose_config(["+experiment=humanomni_stage3", "size=7b", "random_weights=true"]).model
    assert random.encoders.video.weights is None and random.llm.weights is None
    assert Path(random.llm.tokenizer).is_dir()  # text still has to be cut somehow


def test_unknown_foundation_weights_are_named() -> None:
    with pytest.raises(Exception, match=r"no foundation weights named 'umt9'"):
        build(OmegaConf.create({"_target_": "omnihuman.metric.emotion.EmotionRecall", "labels": "${foundation:umt9}"}))


def test_the_configs_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert os.path.isfile(Path(config_dir()) / "train.yaml")
    assert compose_config(["+experiment=humanomni_stage2"]).name == "humanomni_stage2"
