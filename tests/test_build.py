"""From yaml to objects: allowed targets, dropped parts, sources of weights."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.build import build, compose_config, config_dir, prune

METRIC = {"_target_": "omnihuman.metric.emotion.EmotionRecall"}


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.run", "torch.load", "omnihumanx.evil"])
def test_foreign_target_raises(tmp_path: Path, target: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match="not allowed"):
        build({"_target_": target, "command": f"touch {marker}"})
    with pytest.raises(ValueError, match="not allowed"):
        build({**METRIC, "labels": [{"_target_": target}]})
    assert not marker.exists()


def test_unknown_choice_raises_with_its_path() -> None:
    model = compose_config(["+experiment=omni_emotion_stage3", "model.fusions.newline.mode=lines"]).model
    with pytest.raises(ValueError, match=r"^fusions\.newline\.mode=lines: choose from one, frame, grid, none\.$"):
        build(model)
    projector = {"_target_": "omnihuman.projector.mlp.MLPProjector", "in_dim": 4, "out_dim": 4}
    with pytest.raises(ValueError, match="resize=half: choose from ceil_half"):
        build({**projector, "resize": "half"})
    assert build({**projector, "resize": None}) is not None


def test_containers_are_plain() -> None:
    metric = build(OmegaConf.create({**METRIC, "labels": ["a", "b"]}))
    assert type(metric.labels) is list


def test_dropped_projector_has_no_source() -> None:
    part = {"_target_": "omnihuman.projector.linear.LinearProjector"}
    node = prune({"drop": ["projectors.a"], "projectors": {"a": part, "b": part}, "sources": {"a": "v", "b": "v"}})
    assert node == {"projectors": {"b": part}, "sources": {"b": "v"}}


def test_unknown_part_in_drop_raises() -> None:
    with pytest.raises(ValueError, match=r"drop names 'projectors\.c', but 'projectors' has only \['a'\]"):
        prune({"drop": ["projectors.c"], "projectors": {"a": {"_target_": "omnihuman.x"}}})


def test_deselected_part_is_pruned() -> None:
    config = compose_config(["+experiment=humanomni_stage3", "~fusion@model.fusions.compress"])
    assert "inputs" in config.model.fusions.compress  # Hydra leaves the wiring
    plain: Any = OmegaConf.to_container(config.model, resolve=True)
    assert list(prune(plain)["fusions"]) == ["gate"]


def test_random_weights_need_no_hub() -> None:
    model = compose_config(["+experiment=humanomni_stage3", "size=7b"]).model
    assert model.encoders.video.weights == "google/siglip-so400m-patch14-384"
    assert model.llm.tokenizer == "Qwen/Qwen2.5-7B-Instruct"
    random = compose_config(["+experiment=humanomni_stage3", "size=7b", "random_weights=true"]).model
    assert random.encoders.video.weights is None and random.llm.weights is None
    assert Path(random.llm.tokenizer).is_dir()  # text needs a tokenizer all the same


def test_unknown_foundation_weights_raise() -> None:
    with pytest.raises(Exception, match=r"no foundation weights named 'umt9'"):
        build(OmegaConf.create({**METRIC, "labels": "${foundation:umt9}"}))


def test_configs_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (Path(config_dir()) / "train.yaml").is_file()
    assert compose_config(["+experiment=humanomni_stage2"]).name == "humanomni_stage2"
